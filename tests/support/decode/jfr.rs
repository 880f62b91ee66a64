//! JFR, the recording that async-profiler writes and Pyroscope's Java agent sends.
//!
//! ```text
//!   recording = chunk…          chunk = header, events; among them, where the header says:
//!     metadata                  the classes, each with its fields: how events and constants are laid out
//!     constant pools            by class and key what events refer to: stack traces, methods, symbols …
//! ```
//!
//! Nothing of the layout is known here but metadata's own: events and constants are read as it describes them, each
//! to its last byte. An event with a `stackTrace` is a sample of a profile, any other is not about functions.

use std::collections::{BTreeMap, HashMap};

use super::Tally;

/// What was sampled: for each kind of event that has stack traces its functions.
pub fn samples(recording: &[u8]) -> Result<BTreeMap<String, Tally>, String> {
    if recording.is_empty() {
        return Err("a recording without a chunk".to_owned());
    }
    let mut found = BTreeMap::new();
    let mut rest = recording;
    while !rest.is_empty() {
        let chunk = Chunk::read(rest)?;
        chunk.count(&mut found)?;
        rest = &rest[chunk.bytes.len()..];
    }
    Ok(found)
}

struct Chunk<'b> {
    bytes: &'b [u8],
    classes: HashMap<u64, Class<'b>>,
    constants: HashMap<(u64, u64), Value<'b>>,
}

/// A type, of an event or of a value.
struct Class<'b> {
    name: Text<'b>,
    fields: Vec<Field<'b>>,
}

struct Field<'b> {
    name: Text<'b>,
    class: u64,
    /// The value is a key to the constants of its class.
    is_pooled: bool,
    is_array: bool,
}

#[derive(Debug)]
enum Value<'b> {
    Number(u64),
    Text(Text<'b>),
    /// Class and key.
    Constant(u64, u64),
    Array(Vec<Value<'b>>),
    Object(Vec<(Text<'b>, Value<'b>)>),
}

type Text<'b> = std::borrow::Cow<'b, str>;

impl<'b> Chunk<'b> {
    /// The chunk at the beginning of `bytes`.
    fn read(bytes: &'b [u8]) -> Result<Self, String> {
        let mut header = Bytes { rest: bytes };
        if header.take(4)? != b"FLR\0" {
            return Err("a chunk without its mark".to_owned());
        }
        let version = header.big_endian(2)?;
        header.big_endian(2)?;
        let [length, pools, metadata] = [header.size()?, header.size()?, header.size()?];
        // When it began, how long it took; both by two clocks.
        header.take(4 * 8)?;
        let features = header.big_endian(4)?;
        if version != 2 || features & COMPRESSED_NUMBERS == 0 {
            return Err(format!(
                "JFR {version} with features {features:#x} is not known here"
            ));
        }
        let bytes = bytes.get(..length).ok_or("a chunk that does not end")?;
        let mut chunk = Self {
            bytes,
            classes: HashMap::new(),
            constants: HashMap::new(),
        };
        chunk.read_metadata(metadata)?;
        chunk.read_pools(pools)?;
        Ok(chunk)
    }

    fn read_metadata(&mut self, at: usize) -> Result<(), String> {
        let mut event = self.event_at(at)?.of_class(METADATA)?;
        // When it was written, how long that took, and its number.
        for _ in 0..3 {
            event.number()?;
        }
        let strings = (0..event.number()?)
            .map(|_| event.text()?.ok_or("a name that is elsewhere".to_owned()))
            .collect::<Result<Vec<_>, _>>()?;
        let root = Element::read(&mut event, &strings)?;
        event.ended()?;
        let metadata = root.child("metadata").ok_or("metadata without classes")?;
        for element in &metadata.children {
            let (id, class) = Class::described(element)?;
            self.classes.insert(id, class);
        }
        Ok(())
    }

    /// Each pool tells where the one written before it is.
    fn read_pools(&mut self, last: usize) -> Result<(), String> {
        let mut at = last;
        loop {
            let mut event = self.event_at(at)?.of_class(POOLS)?;
            for _ in 0..2 {
                event.number()?;
            }
            let to_previous = event.number()?.cast_signed();
            event.take(1)?;
            for _ in 0..event.number()? {
                let class = event.number()?;
                for _ in 0..event.number()? {
                    let key = event.number()?;
                    let value = self.value(class, &mut event)?;
                    self.constants.insert((class, key), value);
                }
            }
            event.ended()?;
            if to_previous == 0 {
                return Ok(());
            }
            at = at
                .checked_add_signed(to_previous as isize)
                .filter(|previous| *previous < at)
                .ok_or("pools that lead nowhere")?;
        }
    }

    /// Adds what was sampled to `found`.
    fn count(&self, found: &mut BTreeMap<String, Tally>) -> Result<(), String> {
        let mut at = HEADER_BYTES;
        while at < self.bytes.len() {
            let mut event = self.event_at(at)?;
            at += event.length;
            if event.class == METADATA || event.class == POOLS {
                continue;
            }
            let value = self.value(event.class, &mut event.content)?;
            event.content.ended()?;
            if value.field("stackTrace").is_some() {
                let tally = found.entry(self.class(event.class)?.name.to_string());
                self.sample(&value, tally.or_default())?;
            }
        }
        Ok(())
    }

    /// One event, which may stand for several samples.
    fn sample(&self, event: &Value, tally: &mut Tally) -> Result<(), String> {
        let value = match event.field("samples") {
            None => 1,
            Some(Value::Number(samples)) => *samples as i64,
            Some(other) => return Err(format!("{other:?} samples")),
        };
        let Value::Array(frames) = self.at(event, &["stackTrace", "frames"])? else {
            return Err("a stack trace without frames".to_owned());
        };
        let names = frames
            .iter()
            .map(|frame| {
                let class = self.name(frame, &["method", "type", "name"])?;
                let method = self.name(frame, &["method", "name"])?;
                // Native code belongs to no class.
                Ok(if class.is_empty() {
                    method.to_owned()
                } else {
                    format!("{}.{method}", class.replace('/', "."))
                })
            })
            .collect::<Result<Vec<String>, String>>()?;
        tally.add(names, value);
        Ok(())
    }

    /// What a symbol says.
    fn name<'v>(&'v self, value: &'v Value<'b>, path: &[&str]) -> Result<&'v str, String> {
        let symbol = self.at(value, path)?;
        match self.at(symbol, &["string"])? {
            Value::Text(text) => Ok(text),
            other => Err(format!("{other:?} as a name")),
        }
    }

    /// The field of a field of a value, wherever constants lead.
    fn at<'v>(&'v self, value: &'v Value<'b>, path: &[&str]) -> Result<&'v Value<'b>, String> {
        let mut value = value;
        for name in path {
            value = value
                .field(name)
                .ok_or_else(|| format!("no {name} in {value:?}"))?;
            if let Value::Constant(class, key) = value {
                let constant = self.constants.get(&(*class, *key));
                value = constant.ok_or_else(|| format!("no constant {key} for {name}"))?;
            }
        }
        Ok(value)
    }

    fn value(&self, class: u64, bytes: &mut Bytes<'b>) -> Result<Value<'b>, String> {
        let description = self.class(class)?;
        Ok(match &*description.name {
            "boolean" | "byte" => Value::Number(bytes.big_endian(1)?),
            "char" | "short" | "int" | "long" => Value::Number(bytes.number()?),
            "float" => Value::Number(bytes.big_endian(4)?),
            "double" => Value::Number(bytes.big_endian(8)?),
            "java.lang.String" => match bytes.text()? {
                Some(text) => Value::Text(text),
                None => Value::Constant(class, bytes.number()?),
            },
            _ => {
                let fields = description.fields.iter();
                let fields =
                    fields.map(|field| Ok((field.name.clone(), self.field(field, bytes)?)));
                Value::Object(fields.collect::<Result<_, String>>()?)
            }
        })
    }

    fn field(&self, field: &Field, bytes: &mut Bytes<'b>) -> Result<Value<'b>, String> {
        let one = |bytes: &mut Bytes<'b>| {
            if field.is_pooled {
                Ok(Value::Constant(field.class, bytes.number()?))
            } else {
                self.value(field.class, bytes)
            }
        };
        if !field.is_array {
            return one(bytes);
        }
        let values = (0..bytes.number()?).map(|_| one(bytes));
        Ok(Value::Array(values.collect::<Result<_, _>>()?))
    }

    fn class(&self, id: u64) -> Result<&Class<'b>, String> {
        self.classes
            .get(&id)
            .ok_or_else(|| format!("no class {id}"))
    }

    fn event_at(&self, at: usize) -> Result<Event<'b>, String> {
        let bytes = self
            .bytes
            .get(at..)
            .ok_or("an event outside of its chunk")?;
        let mut content = Bytes { rest: bytes };
        let length = content.length()?;
        if length == 0 {
            return Err("an event without a length".to_owned());
        }
        let header_bytes = bytes.len() - content.rest.len();
        let mut content = Bytes {
            rest: bytes
                .get(header_bytes..length)
                .ok_or("an event that does not end")?,
        };
        Ok(Event {
            length,
            class: content.number()?,
            content,
        })
    }
}

impl<'b> Class<'b> {
    fn described(element: &Element<'b>) -> Result<(u64, Self), String> {
        let fields = element
            .children
            .iter()
            .filter(|child| child.name == "field");
        let class = Self {
            name: element
                .attribute("name")
                .cloned()
                .ok_or("a class without a name")?,
            fields: fields
                .map(|field| {
                    Ok(Field {
                        name: field
                            .attribute("name")
                            .cloned()
                            .ok_or("a field without a name")?,
                        class: field.id("class")?,
                        is_pooled: field
                            .attribute("constantPool")
                            .is_some_and(|text| text == "true"),
                        is_array: field.attribute("dimension").is_some_and(|text| text != "0"),
                    })
                })
                .collect::<Result<_, String>>()?,
        };
        Ok((element.id("id")?, class))
    }
}

impl<'b> Value<'b> {
    fn field(&self, wanted: &str) -> Option<&Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let mut fields = fields.iter();
        fields.find_map(|(name, value)| (name == wanted).then_some(value))
    }
}

struct Event<'b> {
    length: usize,
    class: u64,
    content: Bytes<'b>,
}

impl<'b> Event<'b> {
    /// The content of what has to be this.
    fn of_class(self, expected: u64) -> Result<Bytes<'b>, String> {
        if self.class == expected {
            Ok(self.content)
        } else {
            Err(format!(
                "an event {} where {expected} has to be",
                self.class
            ))
        }
    }
}

/// Metadata is a tree like XML's.
struct Element<'b> {
    name: Text<'b>,
    attributes: Vec<(Text<'b>, Text<'b>)>,
    children: Vec<Element<'b>>,
}

impl<'b> Element<'b> {
    fn read(bytes: &mut Bytes<'b>, strings: &[Text<'b>]) -> Result<Self, String> {
        let text = |bytes: &mut Bytes<'b>| {
            let index = bytes.length()?;
            let text = strings.get(index).cloned();
            text.ok_or_else(|| format!("no name {index}"))
        };
        Ok(Self {
            name: text(bytes)?,
            attributes: (0..bytes.number()?)
                .map(|_| Ok((text(bytes)?, text(bytes)?)))
                .collect::<Result<_, String>>()?,
            children: (0..bytes.number()?)
                .map(|_| Self::read(bytes, strings))
                .collect::<Result<_, _>>()?,
        })
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    fn attribute(&self, wanted: &str) -> Option<&Text<'b>> {
        let mut attributes = self.attributes.iter();
        attributes.find_map(|(name, value)| (name == wanted).then_some(value))
    }

    fn id(&self, name: &str) -> Result<u64, String> {
        let text = self
            .attribute(name)
            .ok_or_else(|| format!("no {name} in metadata"))?;
        text.parse()
            .map_err(|error| format!("{name} {text}: {error}"))
    }
}

/// What is still to be read.
struct Bytes<'b> {
    rest: &'b [u8],
}

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| format!("{count} bytes wanted, {} there", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn big_endian(&mut self, count: usize) -> Result<u64, String> {
        let bytes = self.take(count)?.iter();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn size(&mut self) -> Result<usize, String> {
        let number = self.big_endian(8)?;
        usize::try_from(number).map_err(|_| format!("{number} is too large"))
    }

    /// Seven bits a byte, the least first; a ninth byte is whole.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.big_endian(1)?;
            number |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Ok(number | self.big_endian(1)? << 56)
    }

    fn length(&mut self) -> Result<usize, String> {
        let number = self.number()?;
        usize::try_from(number).map_err(|_| format!("{number} is too large"))
    }

    /// `None` when a key to the constants follows.
    fn text(&mut self) -> Result<Option<Text<'b>>, String> {
        let kind = self.big_endian(1)?;
        Ok(Some(match kind {
            0 | 1 => Text::Borrowed(""),
            2 => return Ok(None),
            3 => {
                let length = self.length()?;
                String::from_utf8_lossy(self.take(length)?)
            }
            4 => {
                let characters = (0..self.number()?).map(|_| self.number().map(|unit| unit as u16));
                let characters = characters.collect::<Result<Vec<_>, _>>()?;
                Text::Owned(String::from_utf16_lossy(&characters))
            }
            5 => {
                let length = self.length()?;
                let latin = self.take(length)?.iter();
                Text::Owned(latin.map(|&byte| char::from(byte)).collect())
            }
            other => return Err(format!("text of kind {other}")),
        }))
    }

    fn ended(&self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(format!("{count} bytes of an event are not understood")),
        }
    }
}

/// Classes that every recording has, and no metadata describes.
const METADATA: u64 = 0;
const POOLS: u64 = 1;

const HEADER_BYTES: usize = 68;
const COMPRESSED_NUMBERS: u64 = 1;
