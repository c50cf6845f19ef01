//go:build !race

// Package race makes tests shorter that run with the race detector.
package race

// Stride is the step from one position to the next in a test that can try all of them: each byte at which a connection
// is lost, each place where a reply is cut. Without the race detector it is 1. With the detector it is 5: then each
// position takes much longer, and the goroutines behave alike at all positions.
const Stride = 1
