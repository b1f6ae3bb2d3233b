// Package writers is an app that commits at a steady rate, whether or not what it wrote
// before has arrived.
//
// It promises that each write begins when it is due, or as soon after as one of the app's
// connections is free, and that its connections are closed when Run returns.
package writers
