package bulk

import (
	"context"
	"slices"
)

// Uses names the jobs that are not over and refer to a pipeline, or to a version of a model: "job 01j...". It is what
// control asks before something is deleted. It knows what Run has seen.
func (s *Service) Uses(ctx context.Context, pipeline, model string, version int) ([]string, error) {
	s.mu.Lock()
	var live []*Job
	for _, w := range s.mu.jobs {
		if !w.job.Final() {
			live = append(live, w.job)
		}
	}
	s.mu.Unlock()
	var uses []string
	for _, j := range live {
		used := pipeline != "" && j.Pipeline == pipeline
		if model != "" {
			rev, err := s.store.revision(ctx, j.ID)
			if err != nil {
				return nil, err
			}
			for _, m := range rev.Models {
				used = used || m.Name == model && m.Version == version
			}
		}
		if used {
			uses = append(uses, "job "+j.ID)
		}
	}
	slices.Sort(uses)
	return uses, nil
}
