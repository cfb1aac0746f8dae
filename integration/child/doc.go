// Package child runs the product's own binary as a process of a test: built once, started, asked, killed.
//
// What flows through it: an operation's JSON, a model's folder as a tar, signals. It never looks into the product: what
// a test learns, it learns from the outside, as a user would. A child ends with the test that started it, also when the
// test dies (on Linux).
package child
