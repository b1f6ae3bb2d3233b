package api

import "testing"

// What is no object hides no address that stands beside it.
func TestOddElementsHideNoAddress(t *testing.T) {
	const picture = `{"image_url":{"url":"https://x/a.png"},"type":"image_url"}`
	for request, fleeting := range map[string]bool{
		`{"messages":[{"content":["look",` + picture + `]}]}`:                              true,
		`{"messages":[{"content":[` + picture + `,null,3,[]]}]}`:                           true,
		`{"messages":["hello",{"content":[` + picture + `]}]}`:                             true,
		`{"messages":[{"content":"x"},null,{"content":[` + picture + `]}]}`:                true,
		`{"messages":[{"content":["url:https://x"]}]}`:                                     false,
		`{"messages":["hello",{"content":["a",{"image_url":{"url":"data:image/png,"}}]}]}`: false,
		`{"messages":{"content":[` + picture + `]}}`:                                       false,
		`{"messages":[{"content":` + picture + `}]}`:                                       false,
	} {
		if isFleeting([]byte(request)) != fleeting {
			t.Errorf("%s: fleeting is %v", request, !fleeting)
		}
	}
}
