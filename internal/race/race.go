//go:build race

package race

const Stride = 5
