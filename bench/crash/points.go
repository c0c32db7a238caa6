package main

import (
	"maps"
	"slices"
	"sync"
)

// points are those that runs of all worlds have passed, by scene.
type points struct {
	mu    sync.Mutex
	known map[string]map[string]*point
}

// point is what is known of one point in one scene.
type point struct {
	passes int // runs that came to it
	tries  int // runs that were to die there
	kills  int // runs that did
}

// seen notes which points a run has passed, and where it was killed.
func (p *points) seen(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.known[o.scene()]
	if known == nil {
		known = map[string]*point{}
		p.known[o.scene()] = known
	}
	for i, name := range o.points {
		if known[name] == nil {
			known[name] = &point{}
		}
		if slices.Index(o.points, name) == i {
			known[name].passes++
		}
	}
	if o.code == -1 && o.point != "" && len(o.points) > 0 {
		known[o.points[len(o.points)-1]].kills++
	}
}

// choose is the point of a scene that was tried least, for how often runs come to it, or "" when none is known.
func (p *points) choose(scene string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, best := p.known[scene], ""
	worth := func(name string) float64 { return float64(known[name].passes) / float64(1+known[name].tries) }
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if best == "" || worth(name) > worth(best) {
			best = name
		}
	}
	if best != "" {
		known[best].tries++
	}
	return best
}

// covered is how many points there are, and at how many of them a run was killed.
func (p *points) covered() (killed, known int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, points := range p.known {
		for _, point := range points {
			known++
			if point.kills > 0 {
				killed++
			}
		}
	}
	return killed, known
}
