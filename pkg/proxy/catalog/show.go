package catalog

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Listeners returns the listeners that are held, by name, for those who show them.
func (c *Catalog) Listeners() []mesh.Listener {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sorted(c.listeners)
}

// Routes returns the route configurations that are held, by name.
func (c *Catalog) Routes() []mesh.RouteConfiguration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sorted(c.routes)
}

func sorted[T any](byName map[string]T) []T {
	all := make([]T, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, byName[name])
	}
	return all
}
