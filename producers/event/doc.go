// Package event is the schema of what travels through the streams, and its codec.
//
// It promises that every event that Fields writes is read back equal by Parse,
// and that Parse accepts what a person may write by hand with redis-cli XADD:
// only the type is required, and a subject where the type needs one. A field
// that it does not know is ignored, so that a newer writer does not break an
// older reader.
//
// It does not promise that the data of an event means anything: whoever handles
// the type judges that.
//
// The package is pure: it starts nothing, so there is nothing to stop.
package event
