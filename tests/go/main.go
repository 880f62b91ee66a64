// Command go writes what Go and logrus make of texts, times and fields, as one JSON object a line.
//
// The extension we replace is written in Go, and its users' settings and log parsers mean what Go means. Nobody needs
// Go to build or test: expected.jsonl is kept beside this file and compared by tests/logging.rs. To make it anew:
//
//	cd tests/go && go run . > expected.jsonl
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/http/httpproxy"
)

var out = json.NewEncoder(os.Stdout)

// emit writes one case; every value is a string, so that any reader will do.
func emit(kind string, pairs ...string) {
	object := map[string]string{"kind": kind}
	for i := 0; i < len(pairs); i += 2 {
		object[pairs[i]] = pairs[i+1]
	}
	if err := out.Encode(object); err != nil {
		panic(err)
	}
}

func main() {
	out.SetEscapeHTML(false)
	build, _ := debug.ReadBuildInfo()
	emit("made by", "go", runtime.Version(), build.Deps[0].Path, build.Deps[0].Version)
	layouts()
	texts()
	lines()
	durations()
	integers()
	booleans()
	proxies()
}

// Whether a server is reached through a proxy, through which, and with which credentials.
func proxies() {
	servers := []string{
		"https://profiles.example.com", "https://profiles.example.com:8443", "https://PROFILES.Example.com",
		"https://example.com", "https://notexample.com", "https://localhost", "https://127.0.0.1:4040", "https://127.8.8.8",
		"https://[::1]:4040", "https://10.1.2.3", "https://10.1.2.3:8443", "https://[fd00::1:2]", "https://localhost.example.com",
	}
	lists := []string{
		"", "*", "other.com,*", "example.com", ".example.com", "*.example.com", "Example.COM", " profiles.example.com , x",
		"example.com:443", "example.com:8443", "profiles.example.com:443", "*example.com", "com", ".", ",,", ":443", "e.com",
		"10.1.2.3", "10.1.2.3:443", "10.1.2.3:8443", "10.0.0.0/8", "10.1.2.0/30", "10.1.2.3/32", "10.1.2.4/32", "0.0.0.0/0",
		"10.1.2.3/33", "fd00::1:2", "[fd00::1:2]", "[fd00::1:2]:443", "[fd00::1:2]:444", "fd00::/16", "::/0", "fd01::/16",
		"10", "example.com.", "profiles.*.com", "example.com:", "https://example.com", "192.168.0.0/16;example.com",
	}
	for _, server := range servers {
		for _, list := range lists {
			proxy("http://proxy.internal:3128", list, server)
		}
	}
	for _, address := range []string{
		"http://proxy.internal", "http://proxy.internal:3128/", "HTTP://proxy.internal:3128", "proxy.internal:3128",
		"proxy.internal", "10.0.0.1:3128", "http://user:pass@proxy.internal:3128", "http://us%65r:p%40ss@proxy.internal",
		"user:pass@proxy.internal:3128", "http://user@proxy.internal:3128", "http://[fd00::9]:3128", "http://10.0.0.1:3128",
	} {
		proxy(address, "", "https://profiles.example.com")
	}
}

func proxy(address, list, server string) {
	config := httpproxy.Config{HTTPSProxy: address, NoProxy: list}
	parsed, err := url.Parse(server)
	if err != nil {
		panic(err)
	}
	through, err := config.ProxyFunc()(parsed)
	if err != nil {
		panic(err)
	}
	if through == nil {
		emit("proxy", "address", address, "exceptions", list, "remote", server, "host", "", "port", "", "credentials", "")
		return
	}
	port := through.Port()
	if port == "" {
		port = "80" // net/http's canonicalAddr.
	}
	credentials := ""
	if user := through.User; user != nil {
		password, _ := user.Password()
		credentials = "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	}
	emit("proxy", "address", address, "exceptions", list, "remote", server, "host", through.Hostname(), "port", port,
		"credentials", credentials)
}

func layouts() {
	moments := []time.Time{
		time.Date(2026, 11, 20, 18, 46, 0, 0, time.UTC),
		time.Date(2024, 2, 29, 0, 5, 9, 7e6, time.UTC),
		time.Date(2023, 3, 1, 12, 0, 0, 120e6, time.UTC),
		time.Date(2100, 12, 31, 23, 59, 59, 999e6, time.UTC),
		time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2000, 3, 5, 13, 4, 5, 500e6, time.UTC),
		time.Date(12026, 8, 9, 11, 30, 1, 50e6, time.UTC),
	}
	named := []string{
		time.Layout, time.ANSIC, time.UnixDate, time.RubyDate, time.RFC822, time.RFC822Z, time.RFC850, time.RFC1123,
		time.RFC1123Z, time.RFC3339, time.RFC3339Nano, time.Kitchen, time.Stamp, time.StampMilli, time.StampMicro,
		time.StampNano, time.DateTime, time.DateOnly, time.TimeOnly,
	}
	for _, layout := range named {
		for _, moment := range moments {
			formatted(layout, moment)
		}
	}
	// Every element by itself and beside what might be taken for it; all of it at two moments.
	elements := []string{
		"January", "Jan", "Janus", "JanX", "Jan2", "Monday", "Mon", "Month", "Mon,", "MST", "MS", "Mo", "Ja",
		"1", "01", "2", "_2", "02", "__2", "002", "_2006", "__2006", "_20065", "2006", "06", "20", "200", "15", "3", "03",
		"4", "04", "5", "05", "0", "00", "000", "07", "08", "10", "11", "12", "1999", "PM", "pm", "Pm", "pM", "P", "p",
		"Z07", "Z0700", "Z07:00", "Z070000", "Z07:00:00", "Z", "Z08:00", "-07", "-0700", "-07:00", "-070000", "-07:00:00",
		"-", "-08", "+07:00", "+0700", "UTC", "GMT", "CET",
		".0", ".00", ".000", ".000000", ".000000000", ".000000000000", ".9", ".99", ".999", ".999999999", ".9999999999999",
		",0", ",000", ",9", ",999", ",999999999", ".", ",", ".1", ".0001", ".0009", ".9990", ".00x", ".99:", "..000",
		"05.000", "05,000Z", "05.999 PM", "5.00", ".000.999", "000.000", "0.9", "100.99",
	}
	for _, layout := range elements {
		formatted(layout, moments[1])
		formatted(layout, moments[5])
	}
	rubbish := []string{
		"rubbish", "yyyy-MM-dd'T'HH:mm:ss.SSSZ", "%Y-%m-%dT%H:%M:%SZ", "RFC3339", "iso8601", "unix", "123456789",
		"2006-13-45", "time: \"15:04\"", "<15:04 & \\>", "15h04m05s – été", "日本 2006年1月2日", "a\tb\nc", " ", "x", "\x00",
		"Mon Jan 2 15:04:05 -0700 MST 2006", "Monday, January 2nd", "0102030405060708090", "20060102150405.000",
		"2006-01-02T15:04:05.000Z", "2006-01-02 15:04:05,999999 Z0700", "02/Jan/2006:15:04:05 -0700", "15:04:05.999PM (MST)",
		"2006-002T15", "06.__2 3.04pm", "Jan_2", "Jan__2", "MonJan", "MondayJanuary", "Z07:0", "Z070", "-07:0", "-070", "_", "__", "___2",
	}
	for _, layout := range rubbish {
		for _, moment := range moments[:3] {
			formatted(layout, moment)
		}
	}
	// Go counts a fraction's digits in twelve bits.
	for _, layout := range []string{"." + strings.Repeat("9", 4096), "." + strings.Repeat("0", 4096), "." + strings.Repeat("0", 4099)} {
		formatted(layout, moments[1])
	}
}

func formatted(layout string, moment time.Time) {
	emit("layout", "layout", layout, "unix_ms", strconv.FormatInt(moment.UnixMilli(), 10), "want", moment.Format(layout))
}

// texts sends each text through both of logrus' forms.
func texts() {
	for _, text := range []string{
		"", "a", "plain", "a b", " ", "AZaz09-._/@^+", "a=b", "a:b", "a,b", "~", "#", "é", "ÿ", "日本語", "😀", "a\"b", "a\\b", "'", "`",
		"\a\b\t\n\v\f\r", "\x00", "\x01\x1f", "\x7f", "a\x7f", "\u0080", "\u0085", "\u009f", "\u00a0", "¡", "\u00ad", "\u0301", "e\u0301",
		"\u061c", "\u06dd", "\u070f", "\u1680", "\u180e", "\u2000", "\u200b", "\u200d", "\u200e", "\u2010", "\u2027", "\u2028", "\u2029",
		"\u202e", "\u202f", "\u2030", "\u205f", "\u2060", "\u206f", "\u2070", "\u3000", "\u3001", "\ue000", "\uf8ff", "\ufdd0", "\ufdef",
		"\ufdf0", "\ufeff", "\ufff9", "\ufffc", "\ufffe", "\uffff", "\U0001f600", "\U000110bd", "\U000110cd", "\U00013430", "\U00013440", "\U0001bca0",
		"\U0001d173", "\U0001d17b", "\U0001fffe", "\U00020000", "\U0002ffff", "\U00031350", "\U000323af", "\U000e0001", "\U000e0100",
		"\U000e01ef", "\U000e01f0", "\U000f0000", "\U00100000", "\U0010ffff", "\U0010fffd", "👩‍💻", "👍🏽", "שלום", "नमस्ते", "نص",
		"\u0378", "\u038b", "\u0530", "\u05ff", "\u2065", "\u10c6", "\U0001ffff", "\U0002fa20", "\U00040000", "\U000e0080", "\U000e0200", // unassigned
		"<script>&amp;</script>", "a<b", "a>b", "a&b", "https://example.com:443/path?query=1&other=<2>#x", "C:\\path\\x", "{\"a\":\"b\"}",
		"line one\nline two\r\n", "tab\there", "status 500: <html>", "100%", "$HOME", "[::1]:4040", "127.0.0.1:4040", "x\u2028y", "\x1b[31mred\x1b[0m",
	} {
		line(record{msg: text, names: defaults, noTime: true})
	}
	// No UTF-8: this file's reader sees U+FFFD in place of each byte, as our log does.
	for _, text := range []string{"\xff", "a\xffb", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xed\xa0\x80"} {
		line(record{msg: text, names: defaults, noTime: true, noText: true})
	}
	// But U+FFFD itself stays in text.
	line(record{msg: "\ufffd", names: defaults, noTime: true, noJSON: true})
}

// The names of the fields: time, level, msg, logrus_error, func, file.
type names [6]string

var defaults = names{"time", "level", "msg", "logrus_error", "func", "file"}

type record struct {
	level          logrus.Level
	msg            string
	layout         string
	noTime         bool
	names          names
	fields         logrus.Fields
	noText, noJSON bool
}

var moment = time.Date(2026, 11, 20, 18, 46, 0, 42e6, time.UTC)

func line(r record) {
	if r.level == 0 {
		r.level = logrus.InfoLevel
	}
	if r.layout == "" {
		r.layout = time.RFC3339
	}
	fieldMap := logrus.FieldMap{
		logrus.FieldKeyTime: r.names[0], logrus.FieldKeyLevel: r.names[1], logrus.FieldKeyMsg: r.names[2],
		logrus.FieldKeyLogrusError: r.names[3], logrus.FieldKeyFunc: r.names[4], logrus.FieldKeyFile: r.names[5],
	}
	entry := logrus.NewEntry(logrus.New()).WithFields(r.fields)
	entry.Time, entry.Level, entry.Message = moment, r.level, r.msg
	pairs := []string{
		"level", r.level.String(), "msg", r.msg, "layout", r.layout, "no_time", strconv.FormatBool(r.noTime),
		"unix_ms", strconv.FormatInt(moment.UnixMilli(), 10), "time_name", r.names[0], "level_name", r.names[1],
		"msg_name", r.names[2], "error_name", r.names[3], "func_name", r.names[4], "file_name", r.names[5],
	}
	for name, value := range r.fields {
		switch value := value.(type) {
		case string:
			pairs = append(pairs, "text:"+name, value)
		case uint64:
			pairs = append(pairs, "number:"+name, strconv.FormatUint(value, 10))
		}
	}
	if !r.noText {
		pairs = append(pairs, "want_text", format(&logrus.TextFormatter{
			TimestampFormat: r.layout, DisableTimestamp: r.noTime, FieldMap: fieldMap,
		}, entry))
	}
	if !r.noJSON {
		pairs = append(pairs, "want_json", format(&logrus.JSONFormatter{
			TimestampFormat: r.layout, DisableTimestamp: r.noTime, FieldMap: fieldMap,
		}, entry))
	}
	emit("line", pairs...)
}

func format(f logrus.Formatter, entry *logrus.Entry) string {
	bytes, err := f.Format(entry)
	if err != nil {
		panic(err)
	}
	return string(bytes)
}

func lines() {
	svc := logrus.Fields{"svc": "pyroscope-lambda-ext-main"}
	many := logrus.Fields{
		"svc": "pyroscope-lambda-ext-main", "comp": "relay", "count": uint64(7), "max": ^uint64(0), "zero": uint64(0), "empty": "",
		"Upper": "first", "_under": "score", "with space": "x", "with\"quote": "y", "<tag>": "z", "é": "ü",
	}
	clashes := logrus.Fields{
		"time": "mine", "level": uint64(1), "msg": "mine too", "logrus_error": "none", "func": "f", "file": "g", "svc": "s",
	}
	for _, level := range []logrus.Level{logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel} {
		line(record{level: level, msg: "Starting relay", names: defaults, fields: svc})
	}
	renamed := []names{
		defaults,
		{"@timestamp", "severity", "message", "error", "caller", "source"},
		{"timestamp", "log.level", "m", "e", "func", "file"},
		{"a", "z", "k", "logrus_error", "func", "file"},
		{"time stamp", "le\"vel", "m<s>g", "é", "func", "file"},
		// Names that clash with each other, with a field, and with a prefixed field.
		{"level", "level", "msg", "logrus_error", "func", "file"},
		{"time", "level", "time", "logrus_error", "func", "file"},
		{"time", "msg", "level", "logrus_error", "func", "file"},
		{"x", "x", "x", "x", "x", "x"},
		{"svc", "level", "msg", "logrus_error", "func", "file"},
		{"time", "svc", "count", "comp", "func", "file"},
		{"time", "level", "msg", "svc", "func", "file"},
		{"fields.time", "level", "msg", "logrus_error", "func", "file"},
		{"time", "fields.time", "msg", "logrus_error", "func", "file"},
		{"time", "level", "fields.time", "logrus_error", "func", "file"},
		{"fields.msg", "level", "msg", "logrus_error", "func", "file"},
		{"time", "level", "msg", "fields.time", "func", "file"},
		{"time", "level", "msg", "level", "func", "file"},
		{"fields.level", "fields.fields.level", "level", "msg", "func", "file"},
		{"time", "level", "msg", "logrus_error", "svc", "count"},
	}
	for _, names := range renamed {
		for _, fields := range []logrus.Fields{svc, many, clashes} {
			line(record{msg: "Starting relay", names: names, fields: fields})
			line(record{msg: "Starting relay", names: names, fields: fields, noTime: true})
		}
		line(record{msg: "", names: names, fields: clashes})
	}
	line(record{msg: "", names: defaults, noTime: true})
	line(record{msg: "", names: defaults, fields: svc})
	for _, layout := range []string{
		time.RFC3339Nano, time.Kitchen, time.UnixDate, "2006-01-02T15:04:05.000Z", "2006", "rubbish", "<15:04 & \"05\\\">", "日本\t2006", " ",
	} {
		line(record{msg: "Starting relay", names: defaults, fields: svc, layout: layout})
	}
	line(record{msg: "both", names: defaults, fields: logrus.Fields{"time": "a", "fields.time": "b", "fields.a": "c"}})
	line(record{msg: "twice", names: defaults, fields: logrus.Fields{"fields.level": "a", "fields.fields.level": "b"}})
}

func durations() {
	for _, text := range []string{
		"", "0", "+0", "-0", "00", "0s", "0h", "3", "30", "10s", "5s", "300ms", "1.5h", "2h45m", "1m30s", "1h1m1s1ms1us1ns", "1s1s", "1s1h",
		"+5s", "-5s", "-1.5h", "++5s", "+-5s", "- 5s", "+", "-", ".", ".s", "+.s", "-.5s", ".5s", "5.s", "5.0s", "0.5s", "1..5s", "1.5.5s", "s", "h", "ms",
		"1", "1.", ".1", "1 s", " 1s", "1s ", "1S", "1H", "1M", "1d", "1w", "1y", "1min", "1sec", "1second", "1e3s", "0x1s", "1_000s", "1,5s", "1s,",
		"100ns", "100us", "100µs", "100μs", "100ms", "1µ", "1n", "1u", "1mss", "1m2", "1m2x", "1h-1m", "soon", "ten seconds", "NaN", "Infs", "∞s", "１s", "1ｓ",
		"0.1ns", "0.9ns", "1.9ns", "0.0000000001h", "0.000000000001s", "0.3333333333333333333h", "0.100000000000000000000h", "0.9223372036854775807h",
		"0.99999999999999999999999s", "9007199254.740993s", "39h9m14.425s", "1.0000000001s", "1.123456789123456789s", "3.141592653589793238462643383279h",
		"9223372036854775807ns", "9223372036854775808ns", "-9223372036854775807ns", "-9223372036854775808ns", "-9223372036854775809ns",
		"9223372036854775.807us", "9223372036s854ms775us807ns", "9223372036s854ms775us808ns", "-9223372036s854ms775us808ns", "-9223372036.854775808s",
		"9223372036.854775807s", "9223372036.854775808s", "2562047h47m16.854775807s", "2562047h47m16.854775808s", "2562048h", "3000000h", "106751d",
		"9223372036854775808", "18446744073709551616ns", "99999999999999999999s", "9999999999999999999ns", "922337203685477580ms", "153722867280m", "153722868m",
		"0000000000000000000000010s", "00010s", "1m0.5s", "-1m30s", "1.5m1.5s", "0.5h0.5m", "1h0m0s", "1ms1ms", "1ns1h", "10s\n", "\t10s", "10s\x00",
	} {
		d, err := time.ParseDuration(text)
		emit("duration", "text", text, "want", orRefused(strconv.FormatInt(int64(d), 10), err))
	}
}

func integers() {
	for _, text := range []string{
		"0", "1", "5", "64", "65", "007", "+5", "-5", "-0", "+0", "+", "-", "--5", "+-5", "5.0", "5e1", "0x10", "0b1", "0o7", "1_0", "_1", " 5", "5 ", "5\n", "five", "٣", "５",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "99999999999999999999", "000000000000000000000005", "5,0", "1/2", "'5'",
	} {
		n, err := strconv.Atoi(text)
		emit("integer", "text", text, "want", orRefused(strconv.Itoa(n), err))
	}
}

func booleans() {
	for _, text := range []string{
		"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False", "tRUE", "TRue", "fALSE", "yes", "no", "on", "off", "y", "n", "2", "-1", "01", " true",
		"true ", "true\n", "", "truE", "tt", "1.0", "enabled",
	} {
		b, err := strconv.ParseBool(text)
		emit("boolean", "text", text, "want", orRefused(fmt.Sprint(b), err))
	}
}

func orRefused(value string, err error) string {
	if err != nil {
		return "refused"
	}
	return value
}
