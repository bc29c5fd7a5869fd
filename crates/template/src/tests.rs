//! Tables of templates, held against what Go's text/template (1.24) and Docker's functions give.

use serde_json::{Value as Json, json};

use crate::{Field, Method, MissingKey, Struct, Template, Type, Value};

fn data() -> Json {
    json!({
        "Num": 5, "F": 1.5, "T": true, "N": null, "S": "str <&>", "Empty": "",
        "L": [1, "two", null, [3], {"k": "v"}], "EL": [], "EM": {},
        "M": {"b": 1, "a": {"c": [true]}}, "W": ["x", "y"],
    })
}

fn run(template: &str) -> Result<String, String> {
    let template = Template::parse(template).map_err(|error| error.to_string())?;
    template.execute(&Value::from(data())).map_err(|error| error.to_string())
}

#[test]
fn output() {
    for (template, expected) in [
        ("plain text }} {", "plain text }} {"),
        ("{{.Num}} {{.F}} {{.T}} {{.N}} {{.S}}|{{.Empty}}|", "5 1.5 true <no value> str <&>||"),
        ("{{.L}} {{.EL}} {{.M}} {{.EM}}", "[1 two <nil> [3] map[k:v]] [] map[a:map[c:[true]] b:1] map[]"),
        ("{{.Missing}} {{.Missing.x}}", "<no value> <no value>"),
        ("{{range $i, $e := .W}}{{$i}}={{$e}};{{end}}", "0=x;1=y;"),
        ("{{range $k, $v := .M}}{{$k}}={{$v}};{{end}}", "a=map[c:[true]];b=1;"),
        ("{{range .EL}}x{{else}}empty{{end}} {{range .N}}x{{else}}none{{end}}", "empty none"),
        ("{{range .W}}{{if eq . \"x\"}}{{continue}}{{end}}{{.}}{{end}}", "y"),
        ("{{range .L}}{{if eq (printf \"%v\" .) \"two\"}}{{break}}{{end}}{{.}}{{end}}", "1"),
        ("{{with .M.a}}{{.c}}{{end}}{{with .EM}}x{{else with .M}}y{{end}}", "[true]y"),
        ("{{if .Empty}}a{{else if .Num}}b{{else}}c{{end}}", "b"),
        ("{{$x := .M}}{{$x.b}} {{$x = 7}}{{$x}} {{$.Num}}", "1 7 5"),
        ("{{with $x := 5}}{{$x}}{{end}}", "5"),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Num}}{{block \"b\" .T}}[{{.}}]{{end}}", "<5>[true]"),
        ("a {{- /* comment */ -}} b {{- \"c\" -}} d{{/* e */}}", "abcd"),
        ("{{(index .L 4).k}} {{index .M \"a\" \"c\" 0}} {{index .M \"zz\"}}", "v true <no value>"),
        ("{{slice .W 1}} {{slice .S 0 3}}", "[y] str"),
        ("{{len .L}} {{len .M}} {{len .S}}", "5 2 7"),
        ("{{and .T .Num}} {{or .Empty .S}} {{not .N}}", "5 str <&> true"),
        (
            "{{eq .Num 5}} {{eq .S \"a\" \"str <&>\"}} {{ne .Num 4}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
            "true true true true true",
        ),
        ("{{1.5}} {{0x10}} {{-3}} {{1_000}} {{'a'}} {{1e3}} {{.5}}", "1.5 16 -3 1000 97 1000 0.5"),
        ("{{\"a\\tb\\x41\\u00e9\"}}{{`raw\\n`}}", "a\tbAéraw\\n"),
        ("{{ \"a\" | printf \"%s-%s\" \"b\" }} {{ .Num | }}", "b-a 5"),
        ("{{print 1 2 \"x\" \"y\" 3}} {{println \"a\" 1}}", "1 2xy3 a 1\n"),
        ("{{html \"<a>\"}} {{js \"a\\\"<\"}} {{urlquery \"a b&c\"}}", "&lt;a&gt; a\\\"\\u003C a+b%26c"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn functions_of_docker() {
    for (template, expected) in [
        (
            "{{json .M}} {{json .S}} {{json .N}} {{json .L}}",
            "{\"a\":{\"c\":[true]},\"b\":1} \"str <&>\" null [1,\"two\",null,[3],{\"k\":\"v\"}]",
        ),
        ("{{upper \"ab\"}} {{lower \"AB\"}} {{title \"hello world-x a_b\"}}", "AB ab Hello World-X A_b"),
        ("{{split \"a,b\" \",\"}} {{len (split \"\" \",\")}}", "[a b] 1"),
        ("{{pad \"x\" 2 3}}|{{pad \"\" 2 3}}|{{truncate \"abcdef\" 3}} {{truncate \"ab\" 5}}", "  x   ||abc ab"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
    let words = Type::list(Type::String).view(&json!(["a", "b"]));
    assert_eq!(Template::parse("{{join . \"+\"}}").unwrap().execute(&words).as_deref(), Ok("a+b"));
}

#[test]
fn printf() {
    for (arguments, expected) in [
        (
            "\"%v %5d|%-5d|%05d %+d %x %X %o %b %c %U\" 1 2 3 4 5 255 255 8 5 65 65",
            "1     2|3    |00004 +5 ff FF 10 101 A U+0041",
        ),
        ("\"%f %.2f %8.3f %e %g %G\" 1.5 1.5 1.5 1.5 1.5 1.5", "1.500000 1.50    1.500 1.500000e+00 1.5 1.5"),
        ("\"%s|%8s|%-8s|%.2s|%q|%x\" \"a\" \"b\" \"c\" \"defg\" \"h\" \"ij\"", "a|       b|c       |de|\"h\"|696a"),
        ("\"%t %T %T %%\" true 1 \"x\"", "true int string %"),
        ("\"%d %s\" \"x\" 5", "%!d(string=x) %!s(int=5)"),
        ("\"%d %z %\" 1 2", "1 %!z(int=2) %!(NOVERB)"),
        ("\"%s\"", "%!s(MISSING)"),
        ("\"x\" 1", "x%!(EXTRA int=1)"),
        ("\"%*d|%[2]s %[1]s\" 5 1", "    1|%!s(int=1) %!s(int=5)"),
        ("\"%v %s\" .N .L", "<nil> [%!s(int=1) two <nil> [%!s(int=3)] map[k:v]]"),
    ] {
        assert_eq!(run(&format!("{{{{printf {arguments}}}}}")).as_deref(), Ok(expected), "{arguments}");
    }
}

#[test]
fn what_cannot_be_read() {
    for (template, message) in [
        ("{{.Num", "template: :1: unclosed action"),
        ("{{.Num}", "template: :1: bad character U+007D '}'"),
        ("{{.}", "template: :1: bad character U+007D '}'"),
        ("{{\"abc}}", "template: :1: unterminated quoted string"),
        ("{{`abc}}", "template: :1: unterminated raw quoted string"),
        ("{{/* x }}", "template: :1: unclosed comment"),
        ("{{foo}}", "template: :1: function \"foo\" not defined"),
        ("{{$y}}", "template: :1: undefined variable \"$y\""),
        ("{{}}", "template: :1: missing value for command"),
        ("{{range}}", "template: :1: missing value for range"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{if .T}}", "template: :1: unexpected EOF"),
        ("{{(.Num}}", "template: :1: unclosed left paren"),
        ("{{.Num)}}", "template: :1: unexpected right paren"),
        ("{{.Num foo}}", "template: :1: function \"foo\" not defined"),
        ("{{5 | 6}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{1a}}", "template: :1: bad number syntax: \"1a\""),
        ("{{1e}}", "template: :1: illegal number syntax: \"1e\""),
        ("{{'ab'}}", "template: :1: malformed character constant: 'ab'"),
        ("{{..}}", "template: :1: unexpected <.> in operand"),
        ("a\n{{\n.Num", "template: :3: unclosed action started at :2"),
    ] {
        assert_eq!(run(template).unwrap_err(), message, "{template}");
    }
    let deep = "{{if 1}}".repeat(5000);
    assert_eq!(run(&deep).unwrap_err(), "template: :1: max expression depth exceeded");
    assert!(run(&format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000))).is_err());
}

#[test]
fn what_cannot_be_executed() {
    for (template, message) in [
        ("{{.M.b.c}}", "template: :1:4: executing \"\" at <.M.b.c>: can't evaluate field c in type interface {}"),
        ("{{.N.x}}", "template: :1:4: executing \"\" at <.N.x>: nil pointer evaluating interface {}.x"),
        (
            "{{index .L 9}}",
            "template: :1:2: executing \"\" at <index .L 9>: error calling index: index out of range: 9",
        ),
        (
            "{{index .L 5}}",
            "template: :1:2: executing \"\" at <index .L 5>: error calling index: reflect: slice index out of range",
        ),
        ("{{index .N 1}}", "template: :1:2: executing \"\" at <index .N 1>: error calling index: index of untyped nil"),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{eq 1 \"a\"}}",
            "template: :1:2: executing \"\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison",
        ),
        ("{{json}}", "template: :1:2: executing \"\" at <json>: wrong number of args for json: want 1 got 0"),
        ("{{upper .Num}}", "template: :1:8: executing \"\" at <.Num>: wrong type for value; expected string; got int"),
        ("{{printf 5}}", "template: :1:9: executing \"\" at <5>: expected string; found 5"),
        ("{{.Num 1}}", "template: :1:2: executing \"\" at <.Num>: Num is not a method but has arguments"),
        ("{{range .S}}{{end}}", "template: :1:8: executing \"\" at <.S>: range can't iterate over str <&>"),
        ("{{template \"t\"}}", "template: :1:11: executing \"\" at <{{template \"t\"}}>: template \"t\" not defined"),
        ("\n {{nil}}", "template: :2:3: executing \"\" at <nil>: nil is not a command"),
        (
            "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}",
            "template: :1:25: executing \"t\" at <t>: exceeded maximum template depth (100)",
        ),
    ] {
        assert_eq!(run(template).unwrap_err(), message, "{template}");
    }
    let strict = Template::parse("{{.Nope}}").unwrap().missing_key(MissingKey::Error);
    let message = "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"";
    assert_eq!(strict.execute(&Value::from(data())).unwrap_err().to_string(), message);
}

#[test]
fn output_before_an_error_is_kept() {
    let mut output = String::new();
    let template = Template::parse("before {{.Num}} {{index .L 9}} after").unwrap();
    assert!(template.execute_into(&Value::from(data()), &mut output).is_err());
    assert_eq!(output, "before 5 ");
}

fn person() -> Type {
    let field = |name, json, omit_empty, kind| Field { name, json, omit_empty, kind };
    let base = Type::object("x.Base", vec![field("ID", "Id", false, Type::String)]);
    Type::object(
        "x.Person",
        vec![
            field("Base", "", false, base),
            field("Age", "age", true, Type::Int),
            field("Tags", "tags", false, Type::map(Type::String)),
            field("Words", "words", false, Type::list(Type::String)),
            field("Boss", "boss", true, Type::pointer(Type::object("x.Boss", Vec::new()))),
            field("Born", "born", false, Type::Time),
            field("Secret", "-", false, Type::String),
        ],
    )
}

#[test]
fn structs_have_their_zero_values() {
    let json = json!({"Id": "i", "tags": {"b": "2", "a": "1"}, "born": "2020-01-02T03:04:05.600Z", "more": 1});
    let value = person().view(&json);
    for (template, expected) in [
        ("{{.ID}} {{.Age}} {{.Words}} {{.Boss}} {{.Tags}}", "i 0 [] <nil> map[a:1 b:2]"),
        ("{{.Tags.no}}|{{index .Tags \"no\"}}|{{.Secret}}|", "<no value>|||"),
        ("{{.Born}}", "2020-01-02 03:04:05.6 +0000 UTC"),
        (
            "{{json .}}",
            "{\"Id\":\"i\",\"tags\":{\"a\":\"1\",\"b\":\"2\"},\"words\":null,\"born\":\"2020-01-02T03:04:05.600Z\"}",
        ),
    ] {
        assert_eq!(Template::parse(template).unwrap().execute(&value).as_deref(), Ok(expected), "{template}");
    }
    for (template, message) in [
        ("{{.more}}", "template: :1:2: executing \"\" at <.more>: can't evaluate field more in type x.Person"),
        ("{{.Boss.Name}}", "template: :1:7: executing \"\" at <.Boss.Name>: nil pointer evaluating *x.Boss.Name"),
        ("{{.ID.x}}", "template: :1:5: executing \"\" at <.ID.x>: can't evaluate field x in type string"),
    ] {
        let failed = Template::parse(template).unwrap().execute(&value).unwrap_err();
        assert_eq!(failed.to_string(), message, "{template}");
    }
}

#[test]
fn json_numbers_are_texts() {
    let value = Value::raw(&json!({"n": 5, "z": 0}));
    let execute = |text: &str| Template::parse(text).unwrap().execute(&value).map_err(|error| error.to_string());
    assert_eq!(execute("{{.n}} {{json .n}} {{len .n}} {{if .z}}set{{end}}").as_deref(), Ok("5 5 1 set"));
    assert!(execute("{{eq .n 5}}").unwrap_err().ends_with("incompatible types for comparison"));
}

#[test]
fn methods_and_titles() {
    let label = Method::new(|arguments: &[Value]| match arguments {
        [Value::String(key)] => Ok(Value::text(format!("<{key}>"))),
        _ => Err("wrong number of args for {name}: want 1 got 0".to_owned()),
    });
    let row = Struct {
        name: "x.Row".to_owned(),
        fields: vec![("Label".to_owned(), Value::Method(label))],
        ..Struct::default()
    };
    let row = Value::Struct(std::sync::Arc::new(row));
    let template = Template::parse("{{.Label \"k\"}}{{\"z\" | .Label}}").unwrap();
    assert_eq!(template.execute(&row).as_deref(), Ok("<k><z>"));
    let failed = Template::parse("{{.Label}}").unwrap().execute(&row).unwrap_err();
    assert!(failed.to_string().ends_with("wrong number of args for Label: want 1 got 0"));

    let spoken =
        Struct { text: Some("linux/arm64".to_owned()), json: Some(json!({"os": "linux"})), ..Struct::default() };
    let template = Template::parse("{{.}} {{json .}}").unwrap();
    let spoken = Value::Struct(std::sync::Arc::new(spoken));
    assert_eq!(template.execute(&spoken).as_deref(), Ok("linux/arm64 {\"os\":\"linux\"}"));

    let titles = Value::from(json!({"ID": "CONTAINER ID"}));
    let template = Template::parse("{{json .ID}} {{truncate .ID 3}} {{join .ID \",\"}} {{.Nope}}").unwrap();
    assert_eq!(template.execute_titles(&titles), "CONTAINER ID CONTAINER ID CONTAINER ID <no value>");
    assert!(template.mentions("ID") && !template.mentions("Size") && !template.writes_all());
    assert!(Template::parse("{{if .X}}{{. | json}}{{end}}").unwrap().writes_all());
}
