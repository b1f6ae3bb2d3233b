package stream

import (
	"maps"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
)

// stock decodes metadata as watermill-redisstream does.
func stock(packed string) (metadata message.Metadata, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	m, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(map[string]any{
		redisstream.UUIDHeaderKey: "u", watermillMetadata: packed,
	})
	if err != nil {
		return nil, false
	}
	return m.Metadata, true
}

func TestMetadataOfEverySizeIsReadByTheStockLibrary(t *testing.T) {
	for _, size := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536} {
		long := message.Metadata{strings.Repeat("n", size): strings.Repeat("v", size)}
		many := message.Metadata{}
		for i := range min(size, 70_000) {
			many[strings.Repeat("n", i%7)+string(rune('a'+i%26))+string(rune(0x4e00+i))] = "v"
		}
		for _, metadata := range []message.Metadata{long, many} {
			packed := string(packMetadata(metadata))
			if got, ok := stock(packed); !ok || !maps.Equal(got, metadata) {
				t.Errorf("size %d: the stock library reads %d pairs, %t; want %d", size, len(got), ok, len(metadata))
			}
			if got, ok := readMetadata(packed); !ok || !maps.Equal(got, metadata) {
				t.Errorf("size %d: read %d pairs, %t; want %d", size, len(got), ok, len(metadata))
			}
		}
	}
}

// FuzzReadMetadata: what is read without the stock library is what it reads.
func FuzzReadMetadata(f *testing.F) {
	f.Add("\x81\xa1a\xa1b")
	f.Add("\xde\x00\x01\xd9\x01a\xda\x00\x01b")
	f.Add("\xdf\xff\xff\xff\xff")
	f.Add("\x81\xa1a\xa1b\x00")
	f.Add("\x82\xa1a\xa1b\xa1a\xa1c")
	f.Add("\x80")
	f.Fuzz(func(t *testing.T, packed string) {
		got, ok := readMetadata(packed)
		if !ok {
			return
		}
		if want, ok := stock(packed); !ok || !maps.Equal(got, want) {
			t.Errorf("%q is read as %v; the stock library reads %v, %t", packed, got, want, ok)
		}
	})
}
