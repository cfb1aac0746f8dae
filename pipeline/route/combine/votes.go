package combine

import (
	"bytes"

	"github.com/leatstream/leat/schemas"
)

// votes appends the winners of rows of a fixed-size type. Equal bits are equal labels, so four sizes are all types.
func votes(dst *schemas.Column, vs []voter, from, to int) {
	switch dst.Field().Type.Size() {
	case 1:
		winners[uint8](dst, vs, from, to)
	case 2:
		winners[uint16](dst, vs, from, to)
	case 4:
		winners[uint32](dst, vs, from, to)
	case 8:
		winners[uint64](dst, vs, from, to)
	}
}

func winners[T uint8 | uint16 | uint32 | uint64](dst *schemas.Column, vs []voter, from, to int) {
	w := dst.Width()
	at := dst.Rows() * w
	dst.Extend(to - from)
	out := schemas.Values[T](dst)[at:]
	var views [MaxMembers][]T
	for i, v := range vs {
		views[i] = schemas.Values[T](v.col)[from*w:]
	}
	var tally [MaxMembers]int
	for e := range out {
		first, same := views[0][e], true
		for i := 1; i < len(vs) && same; i++ {
			same = views[i][e] == first
		}
		if same {
			out[e] = first
			continue
		}
		for i := range vs {
			j := 0
			for j < i && views[j][e] != views[i][e] {
				j++
			}
			count(&tally, vs, i, j)
		}
		out[e] = views[winner(&tally, len(vs))][e]
	}
}

// voteTexts is votes for String and Binary; false if there is too much text.
func voteTexts(dst *schemas.Column, vs []voter, from, to int) bool {
	w := dst.Width()
	var tally [MaxMembers]int
	for row := from; row < to; row++ {
		for e := row * w; e < (row+1)*w; e++ {
			for i := range vs {
				text := vs[i].col.Text(e)
				j := 0
				for j < i && !bytes.Equal(vs[j].col.Text(e), text) {
					j++
				}
				count(&tally, vs, i, j)
			}
			text := vs[winner(&tally, len(vs))].col.Text(e)
			if len(text) > maxText-len(dst.Data()) {
				return false
			}
			dst.AppendText(text)
		}
		dst.EndRow()
	}
	return true
}

// count gives voter i's weight to the earliest voter j of the same label; j = i starts a label.
func count(tally *[MaxMembers]int, vs []voter, i, j int) {
	if i == j {
		tally[i] = 0
	}
	tally[j] += vs[i].weight
	if i != j {
		tally[i] = 0
	}
}

// winner returns the first voter of the label with the most weight; of several such labels, that of the earliest voter.
func winner(tally *[MaxMembers]int, n int) int {
	best := 0
	for i := 1; i < n; i++ {
		if tally[i] > tally[best] {
			best = i
		}
	}
	return best
}
