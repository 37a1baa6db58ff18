// Package meta holds no code, only tests of the rules that the repository
// keeps: docs/ARCHITECTURE.md and CONTRIBUTING.md tell why.
package meta
