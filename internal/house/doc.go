// Package house holds the tests about the repository itself: floors, banned dependencies, package comments
// and generated files.
package house
