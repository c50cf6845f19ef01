//go:build !race

// Package race makes tests shorter that run with the race detector.
package race

// Stride is the step from one position to the next in a test that can try all of them: each byte at which a connection
// is lost, each place where a reply is cut. Without the race detector it is 1. With the detector it is 5, because each
// position takes many times as long and the goroutines do the same at all of them.
const Stride = 1
