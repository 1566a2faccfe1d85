//! JSON: the cases in which parsers differ, and all of JSONTestSuite if `UDGRAM_JSON_TEST_SUITE` names
//! a checkout of it.
#![allow(clippy::print_stdout)]

use std::fs;

use udgram::protocol::{DatagramProtocol, Json};

#[test]
fn json_of_rfc_8259_is_accepted() {
    for text in [
        "0",
        "-0",
        "-1",
        "1.5",
        "1e5",
        "1E+5",
        "1e-5",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\uDFAA\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\u{7f}\"",
        "\"\u{2028}\u{10ffff}\"",
        " [] ",
        "\t{}\r\n",
        "[null, true, false]",
        "{\"a\":{\"a\":[[]]}}",
        "{\"a\":1,\"a\":2}",
        "{\"\":0}",
        "[1\n,2]",
        "1e999999",
        "-1e-999999",
        "0.0000000000000000000000001",
    ] {
        assert_eq!(
            Json.build_packet(text.as_bytes()).unwrap(),
            text.trim().replace('\n', "")
        );
    }
}

#[test]
fn text_that_is_not_json_of_rfc_8259_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1_000",
        "1 2",
        "1,",
        ",1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        "1]",
        "[",
        "]",
        "{",
        "}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\"::1}",
        "\"",
        "'a'",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\\\"",
        "\"\t\"",
        "\"\n\"",
        "\"\u{0}\"",
        "\u{feff}1",
        "\u{a0}1",
        "[1]\u{0}",
        "\u{c}1",
        "// a\n1",
        "/**/1",
        "[\"a\",\"b]",
        "{\"a\":\"b}",
        "[1}",
        "{\"a\":1]",
        "\u{2060}1",
        "\\u0031",
        "[--1]",
        "[1.2.3]",
        "[1e1e1]",
        "\u{ff11}",
    ] {
        assert!(Json.build_packet(text.as_bytes()).is_err(), "{text:?}");
    }
    for bytes in [
        b"\"\xff\"".as_slice(),
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\x80\"",
        b"\xff\xfe1\0",
        b"\"\xe9\"",
    ] {
        assert!(Json.build_packet(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn nesting_depth_has_no_limit() {
    for depth in [63, 64, 65, 100_000] {
        for (open, close) in [("[", "]"), ("{\"\":", "}")] {
            let inner = if open == "[" { "" } else { "0" };
            let text = open.repeat(depth) + inner + &close.repeat(depth);
            assert!(Json.build_packet(text.as_bytes()).is_ok());
            assert!(
                Json.build_packet(&text.as_bytes()[..text.len() - 1])
                    .is_err()
            );
            assert!(Json.build_packet(open.repeat(depth).as_bytes()).is_err());
            let other = if open == "[" { "}" } else { "]" };
            let text = open.repeat(depth) + inner + &other.repeat(depth);
            assert!(Json.build_packet(text.as_bytes()).is_err());
        }
    }
}

#[test]
fn a_deep_value_that_does_not_end_is_refused() {
    for depth in (0..130).chain([100_000]) {
        let text = "[".repeat(depth) + "{\"\":[0";
        assert!(Json.build_packet(text.as_bytes()).is_err(), "{depth}");
        let text = text + "]}" + &"]".repeat(depth);
        assert!(Json.build_packet(text.as_bytes()).is_ok(), "{depth}");
    }
}

#[test]
fn the_verdicts_of_the_json_test_suite_hold() {
    let Some(checkout) = std::env::var_os("UDGRAM_JSON_TEST_SUITE") else {
        println!("no checkout of JSONTestSuite is given");
        return;
    };
    let mut counts = [0; 3];
    for file in fs::read_dir(std::path::Path::new(&checkout).join("test_parsing")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let accepted = Json.build_packet(&fs::read(&path).unwrap()).is_ok();
        match name.as_bytes()[0] {
            b'y' => assert!(accepted, "{name}"),
            b'n' => assert!(!accepted, "{name}"),
            _ => println!("{name}: {}", if accepted { "accepted" } else { "refused" }),
        }
        counts[match name.as_bytes()[0] {
            b'y' => 0,
            b'n' => 1,
            _ => 2,
        }] += 1;
    }
    println!("{counts:?} to accept, to refuse, left open");
    assert!(counts.iter().all(|count| *count > 0));
}
