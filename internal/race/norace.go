//go:build !race

// Package race shortens tests that run with the race detector.
package race

// Stride is the step from one position to the next in tests that try all positions, such as each byte at which a
// connection is lost. Without the race detector it is 1. With the detector it is 5, because each position takes much
// longer, and the goroutines behave in the same way at all positions.
const Stride = 1
