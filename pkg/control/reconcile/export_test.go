package reconcile

// TakeWaiting takes in what was delivered, of which there is something, in place of Run.
func (r *Reconciler) TakeWaiting() { r.takeAll(<-r.waits) }
