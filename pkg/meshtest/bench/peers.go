package main

// nginx, haproxy and envoy are the peers, each a chain of as many programs as there are
// configurations. What is particular about their work stands in those.
func nginx(configs ...string) proxy {
	return peer("nginx", "NGINX", nginxProgram, "-v", configs)
}

func haproxy(configs ...string) proxy {
	return peer("haproxy", "HAProxy", haproxyProgram, "-v", configs)
}

func envoy(configs ...string) proxy {
	return peer("envoy", "Envoy", envoyProgram, "--version", configs)
}

func peer(name, title string, start func(config string) program, version string, configs []string) proxy {
	p := proxy{name: name, title: title, version: []string{version}}
	for _, config := range configs {
		p.chain = append(p.chain, start(config))
	}
	return p
}

func nginxProgram(config string) program {
	return program{binary: "nginx", config: config, args: []string{"-e", "stderr", "-c", "{config}"}}
}

func haproxyProgram(config string) program {
	return program{binary: "haproxy", config: config, args: []string{"-db", "-f", "{config}"}}
}

func envoyProgram(config string) program {
	return program{binary: "envoy", config: config,
		args: []string{"--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "{config}"}}
}
