package document

import "strings"

// Near returns the candidate that word was probably meant to be, "" if none is near: equal but for case, dashes and
// underscores, or within a third of its length (rounded up at two thirds, at least one, at most three edits, a swap of neighbours being one).
func Near(word string, candidates []string) string {
	if len(word) > 200 {
		return ""
	}
	best, bestAt := "", 4
	w := fold(word)
	for _, c := range candidates {
		if len(c) > 200 || c == word {
			continue
		}
		f := fold(c)
		limit := min(max(1, (max(len(w), len(f))+1)/3), 3)
		if len(w) <= 1 || len(f) <= 1 {
			limit = 0
		}
		if d := edits(w, f); d <= limit && d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// Meant returns `; did you mean "X"?` for the near candidate, else "; want one of a, b, c" if there are few, else "".
func Meant(word string, candidates []string) string {
	if c := Near(word, candidates); c != "" {
		return `; did you mean "` + c + `"?`
	}
	if len(candidates) == 0 || len(candidates) > 16 {
		return ""
	}
	if len(candidates) == 1 {
		return "; want " + candidates[0]
	}
	return "; want one of " + strings.Join(candidates, ", ")
}

func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
}

// edits is the optimal string alignment distance over bytes.
func edits(a, b string) int {
	two, one := make([]int, len(b)+1), make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}
