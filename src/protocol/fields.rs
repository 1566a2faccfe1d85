//! Fields: the datagrams of sd_notify(3) and of systemd-journald's native protocol.

use super::field_list::{MAX_FIELDS, name_fault, too_many};
use super::{Carrier, DatagramProtocol, FieldList, MAX_PACKET_LEN, ParseError};
use std::borrow::Cow;

/// `NAME=value` lines, as sd_notify(3) and the native protocol of systemd-journald have them. A packet is a
/// [`FieldList`].
///
/// A value that has a line break or is not UTF-8 is sent in the binary form of the native protocol: the name,
/// a line break, the length in eight bytes, little endian, the value, a line break. Either form is received
/// for any value. The last line may lack its line break, and empty lines are ignored, as by the receiver of
/// sd_notify(3).
///
/// A packet that is too long for a datagram is sent in a sealed memfd, and one in a memfd is received, sealed or
/// not ([`Carrier::DatagramOrMemfd`]).
///
/// A name is any text that is not empty and has no `=` and no line break, for sd_notify(3) sets no other
/// rule. systemd-journald ignores fields whose names do not consist of up to 64 upper-case letters, digits and
/// underscores, or begin with a digit or an underscore. A packet has 1 to 1024 fields and at most 64 MiB.
///
/// ```
/// use udgram::protocol::{DatagramProtocol, FieldList, Fields};
///
/// let fields = Fields.build_packet(b"READY=1\nSTATUS=serving")?;
/// assert_eq!(fields.text("STATUS"), Some("serving"));
///
/// let entry = FieldList::from([("MESSAGE", "two\nlines"), ("PRIORITY", "6")]);
/// assert_eq!(
///     &Fields.make_datagram(&entry)?[..],
///     b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=6\n",
/// );
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields;

/// The length of a binary value precedes it in so many bytes.
const PREFIX: usize = size_of::<u64>();

impl DatagramProtocol for Fields {
    type Sent = FieldList;
    type View<'d> = FieldList;
    type Received = FieldList;

    fn make_datagram<'p>(&self, packet: &'p FieldList) -> Result<Cow<'p, [u8]>, ParseError> {
        // There are no bytes yet, so the offset is 0.
        let refuse = |message: Cow<'static, str>| Err(ParseError::new(0, message));
        if packet.is_empty() {
            return refuse("expected at least one field".into());
        }
        if packet.len() > MAX_FIELDS {
            return refuse(too_many());
        }
        let lengths = packet
            .iter()
            .map(|(name, value)| name.len() + value.len() + PREFIX + 3);
        let len = lengths.fold(0, usize::saturating_add);
        if len > MAX_PACKET_LEN {
            return refuse("expected fields of at most 64 MiB".into());
        }
        let mut datagram = Vec::with_capacity(len);
        for (name, value) in packet.iter() {
            if let Some(fault) = name_fault(name) {
                return refuse(fault.into());
            }
            datagram.extend_from_slice(name.as_bytes());
            if value.contains(&b'\n') || std::str::from_utf8(value).is_err() {
                datagram.push(b'\n');
                datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                datagram.push(b'=');
            }
            datagram.extend_from_slice(value);
            datagram.push(b'\n');
        }
        Ok(datagram.into())
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<FieldList, ParseError> {
        let mut fields = FieldList::new();
        let mut at = 0;
        while at < datagram.len() {
            let end = memchr::memchr(b'\n', &datagram[at..]).map_or(datagram.len(), |len| at + len);
            let line = &datagram[at..end];
            if line.is_empty() {
                at = end + 1;
                continue;
            }
            if fields.len() == MAX_FIELDS {
                return Err(ParseError::new(at, too_many()));
            }
            let (len, (value, next)) = match memchr::memchr(b'=', line) {
                Some(len) => (len, (&line[len + 1..], end + 1)),
                None => (line.len(), binary(datagram, end)?),
            };
            let name = std::str::from_utf8(&line[..len]).map_err(|error| {
                ParseError::new(at + error.valid_up_to(), "expected a name in UTF-8")
            })?;
            if name.is_empty() {
                return Err(ParseError::new(at, "expected a name before '='"));
            }
            fields.push(name, value);
            at = next;
        }
        if fields.is_empty() {
            return Err(ParseError::new(0, "expected NAME=value"));
        }
        Ok(fields)
    }

    fn carrier(&self) -> Carrier {
        Carrier::DatagramOrMemfd
    }
}

/// Returns the binary value behind a name that ends at `end`, and the place behind it.
fn binary(datagram: &[u8], end: usize) -> Result<(&[u8], usize), ParseError> {
    let refuse = || ParseError::new(end, "expected '=', or a line break and a binary value");
    let start = end + 1 + PREFIX;
    let prefix = datagram.get(end + 1..start).ok_or_else(refuse)?;
    let len = prefix.try_into().map(u64::from_le_bytes);
    let len = len.ok().and_then(|len| usize::try_from(len).ok());
    let stop = len.and_then(|len| start.checked_add(len));
    let stop = stop.ok_or_else(refuse)?;
    let value = datagram.get(start..stop).ok_or_else(refuse)?;
    match datagram.get(stop) {
        Some(b'\n') => Ok((value, stop + 1)),
        _ => Err(ParseError::new(
            stop,
            "expected a line break after the binary value",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &[u8])]) -> FieldList {
        fields.iter().copied().collect()
    }

    #[test]
    fn both_forms_of_a_value_are_received() {
        for (datagram, fields) in [
            (&b"READY=1"[..], &[("READY", &b"1"[..])][..]),
            (b"READY=1\n", &[("READY", b"1")]),
            (b"\n\nA=1\n\nB=\n\n", &[("A", b"1"), ("B", b"")]),
            (b"A==\nB= =b", &[("A", b"="), ("B", b" =b")]),
            (b"x-v.1 y=\0\r\n", &[("x-v.1 y", b"\0\r")]),
            (b"A=\xff\n", &[("A", b"\xff")]),
            (b"A\n\x03\0\0\0\0\0\0\0\n=\n\n", &[("A", b"\n=\n")]),
            (b"A\n\0\0\0\0\0\0\0\0\nB=1", &[("A", b""), ("B", b"1")]),
        ] {
            assert_eq!(
                Fields.build_packet(datagram),
                Ok(list(fields)),
                "{}",
                datagram.escape_ascii()
            );
        }
    }

    #[test]
    fn a_value_is_sent_in_the_form_that_carries_it() {
        for (fields, datagram) in [
            (&[("A", &b"1"[..]), ("B", b"")][..], &b"A=1\nB=\n"[..]),
            (&[("A", b"\t\0")], b"A=\t\0\n"),
            (&[("A", b"\n")], b"A\n\x01\0\0\0\0\0\0\0\n\n"),
            (&[("A", b"\xff")], b"A\n\x01\0\0\0\0\0\0\0\xff\n"),
        ] {
            let fields = list(fields);
            assert_eq!(Fields.make_datagram(&fields).unwrap(), datagram);
            assert_eq!(Fields.build_packet(datagram), Ok(fields));
        }
    }

    #[test]
    fn what_is_no_field_is_refused_with_its_place() {
        for (datagram, offset) in [
            (&b""[..], 0),
            (b"\n\n", 0),
            (b"hello", 5),
            (b"hello\n", 5),
            (b"hello\nworld", 5),
            (b"A=1\nsome words\nand more words", 14),
            (b"=1", 0),
            (b"A=1\n=2\n", 4),
            (b"A\xff=1", 1),
            (b"A=1\nB\xc3\n\0\0\0\0\0\0\0\0\n", 5),
            (b"A\n\x02\0\0\0\0\0\0\0x", 1),
            (b"A\n\x01\0\0\0\0\0\0\0x", 11),
            (b"A\n\x01\0\0\0\0\0\0\0xy", 11),
            (b"A\n\xff\xff\xff\xff\xff\xff\xff\xffx", 1),
            (b"A\n\xf5\xff\xff\xff\xff\xff\xff\xffx", 1),
            (b"A\n\x01\0\0", 1),
        ] {
            let error = Fields.build_packet(datagram).unwrap_err();
            let shown = datagram.escape_ascii();
            assert_eq!(error.offset(), offset, "{shown}: {error}");
        }
        let many = "A=\n".repeat(MAX_FIELDS);
        assert_eq!(Fields.build_packet(many.as_bytes()).unwrap().len(), 1024);
        let error = Fields.build_packet((many + "A=").as_bytes()).unwrap_err();
        assert_eq!(error.offset(), 3072);
    }

    #[test]
    fn a_list_that_cannot_be_sent_is_refused() {
        let long = "x".repeat(40 << 20);
        for fields in [
            list(&[]),
            list(&[("", b"1")]),
            list(&[("A=", b"1")]),
            list(&[("A\n", b"1")]),
            list(&vec![("A", &b"1"[..]); MAX_FIELDS + 1]),
            list(&[(&long, b""), (&long, b"")]),
        ] {
            assert!(Fields.make_datagram(&fields).is_err());
        }
    }
}
