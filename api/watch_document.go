package api

import "mythiccache/cache/view"

// describeWatch adds to the operation of a view what those may send and get who watch
// its entries.
func describeWatch(operation map[string]any, v *view.View) {
	if v.HTTP.Watch == "" {
		return
	}
	text := func(name string) map[string]any { return map[string]any{"$ref": "#/components/" + name} }
	parameters, _ := operation["parameters"].([]any)
	operation["parameters"] = append(parameters, text("parameters/Wait"), text("parameters/LastEventID"))
	description, _ := operation["description"].(string)
	operation["description"] = description + " Prefer: wait=N beside If-None-Match answers when the entry changes, with 304 when it has not within N seconds." +
		" Accept: text/event-stream has its states sent as they come, as events named " + v.HTTP.Watch + "."
	responses, _ := operation["responses"].(map[string]any)
	found, _ := responses["200"].(map[string]any)
	if content, ok := found["content"].(map[string]any); ok {
		content[eventStream] = map[string]any{"schema": text("schemas/Events")}
	}
	if headers, ok := found["headers"].(map[string]any); ok {
		// A stream is no copy to be kept, and has no age and no tag of its own.
		for name, header := range map[string]string{"Age": "AgeOfOne", "ETag": "ETagOfOne", "Cache-Control": "CacheControlOfBoth"} {
			headers[name] = text("headers/" + header)
		}
		headers["Preference-Applied"] = text("headers/PreferenceApplied")
	}
}
