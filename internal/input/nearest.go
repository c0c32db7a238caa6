package input

import "slices"

// Nearest is the name of known that somebody most likely meant by name, or "" when none is near: at most half of its letters
// differ.
func Nearest(name string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	near := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, near) > len(name)/2 {
		return ""
	}
	return near
}

// distance is how many letters have to be changed, added or left out to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
