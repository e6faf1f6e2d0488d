// Package bubble is imported by test packages that use testing/synctest, for its
// effect: under the race detector they run on one processor. Where two run the
// timers of a bubble, the detector loses its way and the test crashes
// (golang/go#78156). It finds races on one as well. store_sqlite does without:
// its only bubble has one timer at a time, and other tests there need two.
package bubble
