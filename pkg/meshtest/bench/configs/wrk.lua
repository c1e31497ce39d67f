-- wrk prints rounded figures; this prints them as they are, once at the end. It adds
-- nothing to a request or a response.
done = function(summary, _, _)
  local e = summary.errors
  io.write(string.format(
    'summary {"requests":%d,"bytes":%d,"microseconds":%d,"non2xx":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.bytes, summary.duration, e.status, e.connect, e.read, e.write, e.timeout))
end
