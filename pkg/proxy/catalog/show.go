package catalog

import (
	"cmp"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Listeners returns the listeners that are held, by name, for those who show them.
func (c *Catalog) Listeners() []mesh.Listener {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]mesh.Listener, 0, len(c.wants))
	for _, w := range c.wants {
		if w.listener != nil {
			all = append(all, *w.listener)
		}
	}
	slices.SortFunc(all, func(a, b mesh.Listener) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Routes returns the route configurations that are held, by name.
func (c *Catalog) Routes() []mesh.RouteConfiguration {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]mesh.RouteConfiguration, 0, len(c.routes))
	for _, n := range c.routes {
		if n.config != nil {
			all = append(all, *n.config)
		}
	}
	slices.SortFunc(all, func(a, b mesh.RouteConfiguration) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
