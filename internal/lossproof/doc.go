// Package lossproof holds nothing but tests.
package lossproof
