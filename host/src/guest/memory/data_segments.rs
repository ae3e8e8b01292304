//! What a module's memory starts with, taken out of the module: so that it need not be written for every request.
//!
//! A guest nearly always has one memory, which one of its core modules has, with the data that it starts with. That data becomes an
//! image (`image.rs`), and the module is compiled without it. Whatever is not as simple is left as it is, and wasmtime writes the data at each
//! instantiation: several memories, a module that is instantiated twice, offsets that are imported. Pure; nothing is validated here,
//! compiling does that.

use std::ops::Range;

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentTypeRef, Data,
    DataKind, DataSectionReader, Encoding, FunctionBody, Instance, MemoryType, Operator, Parser, Payload, TypeRef,
};

const PAGE: usize = 64 * 1024;
/// Section numbers of the binary formats.
const MEMORY_SECTION: u8 = 5;
const DATA_SECTION: u8 = 11;

/// What a memory starts with: some bytes of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InitialMemory<'a> {
    /// Bytes that the memory has at its start.
    pub(crate) size: usize,
    /// Where in the memory, and what; the later ones over the earlier ones.
    pub(crate) segments: Vec<(usize, &'a [u8])>,
}

/// A file in two parts.
pub(crate) struct Split<'a> {
    /// The file, its memory all zeros at the start.
    pub(crate) module: Vec<u8>,
    pub(crate) memory: InitialMemory<'a>,
    /// The sections that say so, of the module that has the memory.
    sections: [(u8, Range<usize>); 2],
}

/// One core module of a file.
#[derive(Default)]
struct CoreModule<'a> {
    /// The section of a component that has the module; a file that is a core module has none.
    within: Option<Range<usize>>,
    memories: Vec<MemoryType>,
    memory_section: Range<usize>,
    imports_memory: bool,
    /// There if a function names segments of data by their numbers, and perhaps also if none does. It counts right, or the file is malformed.
    data_count_section: Option<Range<usize>>,
    names_data: bool,
    data: Option<DataSectionReader<'a>>,
}

/// Takes the data out, unless the file is not as simple as that, or there is none to take.
///
/// # Errors
/// It is malformed.
pub(crate) fn split(file: &[u8]) -> Result<Option<Split<'_>>, BinaryReaderError> {
    let Some(module) = with_the_memory(file)? else { return Ok(None) };
    let [memory] = &*module.memories else { return Ok(None) };
    let is_plain = !memory.shared && !memory.memory64 && memory.page_size_log2.is_none() && !module.imports_memory;
    let Some(data) = module.data.filter(|_| is_plain) else { return Ok(None) };
    let Some(size) = usize::try_from(memory.initial).ok().and_then(|pages| pages.checked_mul(PAGE)) else {
        return Ok(None);
    };

    let (mut segments, mut numbered) = (Vec::new(), leb(data.count()));
    for segment in data.clone() {
        let segment = segment?;
        match place(&segment, size)? {
            Place::At(offset) => {
                segments.push((offset, segment.data));
                // What is left of an active segment once it is written, for whoever names it by its number: nothing, and that is
                // written nowhere.
                numbered.extend_from_slice(&[0x01, 0x00]);
            }
            Place::Passive => numbered.extend_from_slice(&file[segment.range]),
            Place::Unknown => return Ok(None),
        }
    }
    let sections = [(MEMORY_SECTION, module.memory_section), (DATA_SECTION, data.range())];
    // Where nobody names segments there are none: each costs every instance a little, and Go has 50,000.
    let changed = if module.names_data {
        vec![(data.range(), numbered)]
    } else {
        module.data_count_section.into_iter().chain([data.range()]).map(|range| (range, leb(0))).collect()
    };
    let without = with_sections(file, module.within, &changed);
    Ok(Some(Split { module: without, memory: InitialMemory { size, segments }, sections }))
}

impl Split<'_> {
    /// The data as a module of its own, which has nothing but its memory: [`split`] finds the same in it.
    pub(crate) fn data_module(&self, file: &[u8]) -> Vec<u8> {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (number, range) in &self.sections {
            module.push(*number);
            module.extend_from_slice(&leb(u32::try_from(range.len()).unwrap_or(u32::MAX)));
            module.extend_from_slice(&file[range.clone()]);
        }
        module
    }
}

/// The one core module that has a memory, if it is instantiated once.
fn with_the_memory(file: &[u8]) -> Result<Option<CoreModule<'_>>, BinaryReaderError> {
    let mut modules: Vec<CoreModule<'_>> = Vec::new();
    let mut instances = Vec::new();
    // What encloses the section that is looked at, outermost first.
    let mut within: Vec<Encoding> = Vec::new();
    let mut section = None;
    for payload in Parser::new(0).parse_all(file) {
        match payload? {
            Payload::Version { encoding, .. } => {
                within.push(encoding);
                if encoding == Encoding::Module {
                    modules.push(CoreModule { within: section.take(), ..CoreModule::default() });
                    // In components of components, who knows how often.
                    if within.len() > 2 {
                        return Ok(None);
                    }
                }
            }
            Payload::End(_) => drop(within.pop()),
            Payload::ModuleSection { unchecked_range, .. } => section = Some(unchecked_range),
            Payload::InstanceSection(reader) if within.len() == 1 => {
                for instance in reader {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        instances.push(module_index as usize);
                    }
                }
            }
            // Modules that come from elsewhere and count among the component's own, or that others instantiate too.
            Payload::ComponentAliasSection(reader) => {
                for alias in reader {
                    if let ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
                    | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } = alias?
                    {
                        return Ok(None);
                    }
                }
            }
            Payload::ComponentImportSection(reader) => {
                for import in reader {
                    if let ComponentTypeRef::Module(_) = import?.ty {
                        return Ok(None);
                    }
                }
            }
            Payload::ImportSection(reader) => {
                let Some(module) = modules.last_mut() else { continue };
                for import in reader.into_imports() {
                    module.imports_memory |= matches!(import?.ty, TypeRef::Memory(_));
                }
            }
            Payload::MemorySection(reader) => {
                let Some(module) = modules.last_mut() else { continue };
                module.memory_section = reader.range();
                module.memories = reader.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::DataCountSection { range, .. } => {
                let Some(module) = modules.last_mut() else { continue };
                module.data_count_section = Some(range);
            }
            Payload::CodeSectionEntry(body) => {
                let Some(module) = modules.last_mut() else { continue };
                if module.data_count_section.is_some() && !module.names_data {
                    module.names_data = names_data(&body, &file[body.range()])?;
                }
            }
            Payload::DataSection(reader) => {
                let Some(module) = modules.last_mut() else { continue };
                module.data = Some(reader);
            }
            _ => {}
        }
    }
    let mut with_memory = modules.into_iter().enumerate().filter(|(_, module)| !module.memories.is_empty());
    let (Some((index, module)), None) = (with_memory.next(), with_memory.next()) else { return Ok(None) };
    let times = instances.iter().filter(|instance| **instance == index).count();
    Ok((module.within.is_none() || times == 1).then_some(module))
}

/// Whether a function names a segment of data by its number. `bytes` are its own.
fn names_data(body: &FunctionBody<'_>, bytes: &[u8]) -> Result<bool, BinaryReaderError> {
    // All such operators begin like this. Only functions that have these bytes at all, whatever they mean there, are read.
    let may_be = |pair: &[u8]| match pair {
        [0xfc, second] => matches!(second & 0x7f, 0x08 | 0x09),
        [0xfb, second] => matches!(second & 0x7f, 0x09 | 0x12),
        _ => false,
    };
    if !bytes.windows(2).any(may_be) {
        return Ok(false);
    }
    for operator in body.get_operators_reader()? {
        if let Operator::MemoryInit { .. }
        | Operator::DataDrop { .. }
        | Operator::ArrayNewData { .. }
        | Operator::ArrayInitData { .. } = operator?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a segment goes.
enum Place {
    At(usize),
    /// Nowhere, until the guest says so.
    Passive,
    /// Only an instance knows, or it does not fit, which makes instantiation fail.
    Unknown,
}

fn place(segment: &Data<'_>, size: usize) -> Result<Place, BinaryReaderError> {
    let DataKind::Active { memory_index, offset_expr } = &segment.kind else { return Ok(Place::Passive) };
    let mut operators = offset_expr.get_operators_reader();
    let (Operator::I32Const { value }, Operator::End) = (operators.read()?, operators.read()?) else {
        return Ok(Place::Unknown);
    };
    let offset = value.cast_unsigned() as usize;
    let fits = *memory_index == 0 && offset.checked_add(segment.data.len()).is_some_and(|end| end <= size);
    Ok(if fits { Place::At(offset) } else { Place::Unknown })
}

/// The file with other contents in some sections of a module, in order; `within` is what of the file is that module, if not all.
fn with_sections(file: &[u8], within: Option<Range<usize>>, changed: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let length = |length: usize| leb(u32::try_from(length).unwrap_or(u32::MAX));
    let sections: Vec<_> = changed
        .iter()
        .map(|(range, contents)| {
            (length_of(file, range).start..range.end, [&length(contents.len())[..], contents].concat())
        })
        .collect();
    let less: usize = sections.iter().map(|(range, new)| range.len() - new.len()).sum();
    let module = within.map(|module| (length_of(file, &module), length(module.len() - less)));
    let (mut whole, mut copied) = (Vec::with_capacity(file.len()), 0);
    for (range, new) in module.iter().chain(&sections) {
        whole.extend_from_slice(&file[copied..range.start]);
        whole.extend_from_slice(new);
        copied = range.end;
    }
    whole.extend_from_slice(&file[copied..]);
    whole
}

/// Where the length of a section stands that has these contents: before them, its bytes but the last with the high bit set; and before that
/// a number, which has not.
fn length_of(file: &[u8], contents: &Range<usize>) -> Range<usize> {
    let mut start = contents.start - 1;
    while file[start - 1] & 0x80 != 0 {
        start -= 1;
    }
    start..contents.start
}

/// A number as the binary format has it (LEB128).
fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        // The low seven bits.
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    type Segments = Vec<(usize, Vec<u8>)>;

    fn binary(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("valid text")
    }

    /// What is taken out of a file; what is left has no data that is written at the start, and is as valid as before.
    fn taken(text: &str) -> Option<(usize, Segments)> {
        let file = binary(text);
        let split = split(&file).expect("well-formed")?;
        wasmparser::validate(&file).expect("valid");
        wasmparser::validate(&split.module).expect("valid without its data");
        let own = |memory: &InitialMemory<'_>| {
            let segments = memory.segments.iter().map(|(at, bytes)| (*at, bytes.to_vec()));
            (memory.size, segments.collect::<Segments>())
        };
        let left = super::split(&split.module).expect("well-formed").expect("it has the sections still");
        assert_eq!(left.memory.segments, []);
        assert!(split.module.len() < file.len());
        let module = split.data_module(&file);
        assert_eq!(
            own(&super::split(&module).expect("well-formed").expect("all of it is data").memory),
            own(&split.memory)
        );
        Some(own(&split.memory))
    }

    #[test]
    fn data_is_taken_out_of_a_core_module() {
        let text = r#"(module (memory 2) (data (i32.const 70000) "hello") (func) (data (i32.const 0) "") (data (i32.const 131071) "x"))"#;
        let segments = vec![(70000, b"hello".to_vec()), (0, Vec::new()), (131_071, b"x".to_vec())];
        assert_eq!(taken(text), Some((131_072, segments)));
    }

    #[test]
    fn data_is_taken_out_of_the_one_module_of_a_component_that_has_a_memory() {
        let text = format!(
            r#"(component
                (core module $other (func (export "f")))
                (core module $main (import "o" "f" (func)) (memory (export "m") 1) (data (i32.const 8) "{}") (func (export "g")))
                (core module $after (import "m" "m" (memory 1)) (data (i32.const 0) "not this"))
                (core instance $o (instantiate $other))
                (core instance $m (instantiate $main (with "o" (instance $o))))
                (core instance $a (instantiate $after (with "m" (instance $m))))
                (core instance $o2 (instantiate $other)))"#,
            "long".repeat(1000)
        );
        assert_eq!(taken(&text), Some((65536, vec![(8, b"long".repeat(1000))])));
    }

    #[test]
    fn segments_that_are_not_written_at_the_start_stay_and_keep_their_numbers() {
        let text = r#"(module (memory 1) (data $one (i32.const 1) "uno") (data $two "dos")
            (func (memory.init $two (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop $one)))"#;
        assert_eq!(taken(text), Some((65536, vec![(1, b"uno".to_vec())])));
        let file = binary(text);
        let left = split(&file).expect("well-formed").expect("simple").module;
        assert!(left.windows(3).any(|bytes| bytes == b"dos") && !left.windows(3).any(|bytes| bytes == b"uno"));
    }

    #[test]
    fn segments_that_nobody_names_are_gone_also_where_they_are_counted() {
        // The second function has the bytes of `memory.init` in a constant.
        let text = r#"(module (memory 1) (data (i32.const 1) "uno") (data (i32.const 9) "dos")
            (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))) (func (drop (i32.const 0x47c))))"#;
        let file = binary(text);
        let code = |payload| match payload {
            Ok(Payload::CodeSectionStart { range, .. }) => Some(range.start - 2),
            _ => None,
        };
        let code = Parser::new(0).parse_all(&file).find_map(code).expect("it has functions");
        let counted = [&file[..code], &[12, 1, 2], &file[code..]].concat();
        wasmparser::validate(&counted).expect("valid");
        let (counted, uncounted) = (split(&counted).expect("well-formed"), split(&file).expect("well-formed"));
        let (counted, uncounted) = (counted.expect("simple"), uncounted.expect("simple"));
        wasmparser::validate(&counted.module).expect("valid without its data");
        assert_eq!(counted.memory, uncounted.memory);
        assert_eq!(counted.module.len(), uncounted.module.len() + 3, "but for the count, which is 0");
        let miscounted = [&file[..code], &[12, 1, 3], &file[code..]].concat();
        assert!(split(&miscounted).is_err(), "it is left to be refused");
    }

    #[test]
    fn lengths_may_be_written_longer_than_they_need_be() {
        let mut file = binary(r#"(module (memory 1) (data (i32.const 1) "one"))"#);
        let [_, (_, data)] = split(&file).expect("well-formed").expect("simple").sections;
        let length = file[data.start - 1];
        file.splice(data.start - 1..data.start, [length | 0x80, 0x80, 0x80, 0x80, 0]);
        let split = split(&file).expect("well-formed").expect("simple");
        wasmparser::validate(&split.module).expect("valid without its data");
        assert_eq!(split.memory.segments, [(1, &b"one"[..])]);
    }

    #[test]
    fn what_is_not_as_simple_stays_as_it_is() {
        for text in [
            "(module)",
            "(module (memory 1))",
            r#"(module (import "m" "m" (memory 1)) (data (i32.const 0) "x"))"#,
            r#"(module (memory 1 1 shared) (data (i32.const 0) "x"))"#,
            r#"(module (memory i64 1) (data (i64.const 0) "x"))"#,
            r#"(module (memory 1) (memory 1) (data (i32.const 0) "x"))"#,
            r#"(module (import "m" "m" (memory 1)) (memory 1) (data (i32.const 0) "x"))"#,
            r#"(module (import "g" "g" (global i32)) (memory 1) (data (global.get 0) "x"))"#,
            r#"(module (memory 1) (data (i32.add (i32.const 0) (i32.const 1)) "x"))"#,
            r#"(module (memory 1) (data (i32.const 65535) "xy"))"#,
            r#"(module (memory 1) (data (i32.const -1) "x"))"#,
            r#"(component (core module $m (memory 1) (data (i32.const 0) "x")))"#,
            r#"(component (core module $m (memory 1) (data (i32.const 0) "x"))
                (core instance (instantiate $m)) (core instance (instantiate $m)))"#,
            r#"(component (core module $m (memory 1) (data (i32.const 0) "x")) (core module $n (memory 1))
                (core instance (instantiate $m)) (core instance (instantiate $n)))"#,
            r#"(component (component (core module $m (memory 1) (data (i32.const 0) "x")) (core instance (instantiate $m))))"#,
            r#"(component (core module $m (memory 1) (data (i32.const 0) "x")) (core instance (instantiate $m))
                (component $c (alias outer 1 $m (core module $n)) (core instance (instantiate $n))) (instance (instantiate $c)))"#,
            r#"(component (import "n" (core module $n)) (core module $m (memory 1) (data (i32.const 0) "x"))
                (core instance (instantiate $m)))"#,
        ] {
            assert_eq!(taken(text), None, "{text}");
        }
    }
}
