//! `udgram sockopt`: shows and sets the options of a socket.

use crate::cli::Sockopt;
use crate::cli::setting::{Part, Request};
use crate::color;
use crate::endpoint::{self, Connect, Endpoint, Purpose, Source};
use crate::exit::Exit;
use crate::json::{Layout, Object, write_option_value};
use crate::output::Output;
use crate::overview::Shown;
use crate::report::Report;
use crate::signal::{Signals, stop_descriptor};
use crate::terminal::{Controls, escape};
use anyhow::Result;
use nix::libc;
use udgram::sockopt;
use udgram::wait::Wake;
use udgram::{Address, DatagramSocket};

pub(crate) fn run(options: &Sockopt, report: Report) -> Result<Exit> {
    // Parse before binding: a wrong argument must have no effect.
    let asked = Request::parse_all(&options.options)?;
    let request = endpoint::Request {
        source: match Source::of(options.bind.as_ref(), true, &options.inherited, "--bind")? {
            // The command sends nothing, so it needs no address for answers.
            Source::Autobound => Source::Bound(&Address::Unnamed),
            source => source,
        },
        connect: options.connect.as_ref().map(Connect::now),
        settings: &[],
        file: &options.file,
        queue: None,
        needs: &[],
        purpose: Purpose::Leave,
    };
    Signals::install()?;
    let Endpoint {
        socket,
        cleanup: _cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let mut output = Output::new();
    let layout = if output.terminal {
        Layout::Lines
    } else {
        Layout::Compact
    };
    answer(&socket, &asked, layout, &mut output.lines)?;
    if asked.len() != 1 && color::wanted(options.shown.color, output.terminal) {
        color::paint(&mut output.lines, 0);
    }
    output.lines.push(b'\n');
    output.flush(&Wake::new(stop_descriptor(), None))?;
    Ok(Exit::Done)
}

/// Carries out the requests and appends the result to `lines`, without the last line end: for no request,
/// a JSON object of everything; for one, the value in the form of `NAME=VALUE`; for several, a JSON object.
fn answer(
    socket: &DatagramSocket,
    asked: &[Request],
    layout: Layout,
    lines: &mut Vec<u8>,
) -> Result<()> {
    if let [request] = asked {
        let (_, shown) = carry_out(request, socket)?;
        shown.write_alone(lines);
        return Ok(());
    }
    let start = lines.len();
    let mut object = Object::begin(lines, layout);
    if asked.is_empty() {
        for part in Part::ALL {
            Shown::of(part, socket)?.write(part.name(), &mut object);
        }
        for (option, value) in sockopt::list(socket) {
            write_option_value(&value, object.member(option.name()));
        }
    }
    // An option asked for twice is one member, with the last value.
    let mut members: Vec<(&str, Shown)> = Vec::new();
    for request in asked {
        let (name, shown) = carry_out(request, socket)?;
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = shown,
            None => members.push((name, shown)),
        }
    }
    for (name, shown) in members {
        shown.write(name, &mut object);
    }
    object.end();
    // Escape in every output, not only on a terminal: a pathname or a text may have DEL and C1 controls,
    // which serde_json leaves unescaped.
    escape(lines, start, Controls::Json);
    Ok(())
}

/// Carries out one request. Returns its name and what it shows. After setting an option, reads the value
/// back, for the kernel may change it; shows the given value if the option cannot be read
/// (ENOPROTOOPT).
fn carry_out<'r>(
    request: &'r Request,
    socket: &DatagramSocket,
) -> udgram::Result<(&'r str, Shown)> {
    match request {
        Request::Part(part) => Ok((part.name(), Shown::of(*part, socket)?)),
        Request::Show(option) => {
            let value = sockopt::get(socket, option)?;
            Ok((option.name(), Shown::Option(value)))
        }
        Request::Set(setting) => {
            sockopt::set(socket, &setting.option, &setting.value)?;
            let value = match sockopt::get(socket, &setting.option) {
                Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                    setting.value.clone()
                }
                value => value?,
            };
            Ok((setting.option.name(), Shown::Option(value)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn done(socket: &DatagramSocket, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut lines = Vec::new();
        let asked = Request::parse_all(&arguments)?;
        answer(socket, &asked, Layout::Compact, &mut lines)?;
        Ok(String::from_utf8(lines)?)
    }

    #[test]
    fn a_value_that_is_printed_alone_is_accepted_as_an_argument() {
        let socket = DatagramSocket::new().unwrap();
        for (name, values) in [
            ("SO_PASSCRED", ["on", "off"].as_slice()),
            ("SO_PEEK_OFF", &["7", "-1"]),
            ("SO_RCVTIMEO", &["1m 30s", "500ms", "none"]),
            ("SO_LINGER", &["3s", "0s", "off"]),
            ("SO_BINDTODEVICE", &["lo", ""]),
        ] {
            for value in values {
                let set = format!("{name}={value}");
                assert_eq!(done(&socket, &[&set]).unwrap(), *value, "{name}");
                assert_eq!(done(&socket, &[name]).unwrap(), *value, "{name}");
            }
        }
        let doubled = done(&socket, &["sndbuf=30000"]).unwrap();
        assert_eq!(doubled, "60000");
    }

    #[test]
    fn several_options_are_one_object_in_the_order_of_the_arguments() {
        let socket = DatagramSocket::new().unwrap();
        let arguments = ["passcred=on", "Type", "rcvtimeo", "linger", "1:16=0"];
        let text = done(&socket, &arguments).unwrap();
        // 1:16 is SO_PASSCRED again: one member, with the last value.
        assert_eq!(
            text,
            r#"{"SO_PASSCRED":false,"SO_TYPE":2,"SO_RCVTIMEO":null,"SO_LINGER":false}"#
        );
        let arguments = ["passcred=on", "typ=1"];
        assert!(done(&socket, &arguments).is_err());
        assert_eq!(done(&socket, &["passcred"]).unwrap(), "off");
    }

    #[test]
    fn the_overview_has_addresses_queue_and_options() {
        let (one, other) = DatagramSocket::pair().unwrap();
        one.autobind().unwrap();
        let json = |socket| -> Json { serde_json::from_str(&done(socket, &[]).unwrap()).unwrap() };
        let (one, other) = (json(&one), json(&other));
        assert!(one["local"].as_str().unwrap().starts_with('@'));
        assert_eq!(one["local"], other["peer"]);
        assert_eq!(other["local"], Json::Null);
        assert_eq!(one["queue"], serde_json::json!({"inq": 0, "outq": 0}));
        assert_eq!(one["SO_PEERCRED"]["pid"], std::process::id());
        assert_eq!(one["SO_ERROR"], 0);
        assert!(one["SO_SNDBUF"].as_u64().unwrap() > 0);
        assert_eq!(one["SO_MEMINFO"]["sndbuf"], one["SO_SNDBUF"]);
    }
}
