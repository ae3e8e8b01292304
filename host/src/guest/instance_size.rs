//! How much an instance takes beside its memories and tables, estimated from the file: what wasmtime allocates for each core instance
//! goes with the functions, globals and segments of its module, however little of that is in a file.
//!
//! A bound for modules that are made to take much, not an account: nothing of it is charged to a request. Pure; index spaces that
//! cannot be followed here (what is exported by a component's instance) count as the largest there is.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, DataKind,
    ElementItems, ElementKind, Encoding, Instance, Parser, Payload, TypeRef,
};

/// What an instance may take, in bytes. JavaScript takes 0.4 MiB, Python 0.6.
pub(super) const MOST: usize = 16 << 20;

/// Bytes for one of each in wasmtime 48, on a machine of 64 bits: a reference to a function, an import of any kind, a global, a segment
/// of data, and an element of a segment that is kept.
const FUNCTION: usize = 32;
const IMPORT: usize = 32;
const GLOBAL: usize = 16;
const DATA: usize = 12;
const ELEMENT: usize = 16;

/// A module or component whose end has not been seen.
struct Open {
    encoding: Encoding,
    /// What its instance takes.
    size: usize,
    /// What an instance of each takes that it has.
    modules: Vec<usize>,
    components: Vec<usize>,
}

/// What an instance of the file takes beside memories and tables, in bytes.
///
/// # Errors
/// The file is malformed.
pub(super) fn instance_size(file: &[u8]) -> Result<usize, BinaryReaderError> {
    let mut open: Vec<Open> = Vec::new();
    let (mut largest_module, mut largest_component) = (0, 0);
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload?;
        if let Payload::Version { encoding, .. } = payload {
            open.push(Open { encoding, size: 0, modules: Vec::new(), components: Vec::new() });
            continue;
        }
        let depth = open.len();
        let Some(this) = open.last_mut() else { continue };
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let function = matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                    add(&mut this.size, 1, IMPORT + if function { FUNCTION } else { 0 });
                }
            }
            Payload::FunctionSection(section) => add(&mut this.size, section.count(), FUNCTION),
            Payload::GlobalSection(section) => add(&mut this.size, section.count(), GLOBAL),
            Payload::DataSection(section) => {
                for segment in section {
                    // The others become the image, but for those that are numbered.
                    add(&mut this.size, 1, if matches!(segment?.kind, DataKind::Passive) { DATA } else { 0 });
                }
            }
            Payload::ElementSection(section) => {
                for segment in section {
                    let segment = segment?;
                    let count = match segment.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    };
                    let is_kept = !matches!(segment.kind, ElementKind::Declared);
                    add(&mut this.size, if is_kept { count } else { 0 }, ELEMENT);
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        let module = this.modules.get(module_index as usize).copied();
                        add(&mut this.size, 1, module.unwrap_or(largest_module));
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        let component = this.components.get(component_index as usize).copied();
                        add(&mut this.size, 1, component.unwrap_or(largest_component));
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    let (is_module, size) = match alias? {
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => (true, None),
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => (false, None),
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                            (true, outer(&open, depth, count).and_then(|it| it.modules.get(index as usize).copied()))
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => (
                            false,
                            outer(&open, depth, count).and_then(|it| it.components.get(index as usize).copied()),
                        ),
                        _ => continue,
                    };
                    let this = &mut open[depth - 1];
                    match is_module {
                        true => this.modules.push(size.unwrap_or(largest_module)),
                        false => this.components.push(size.unwrap_or(largest_component)),
                    }
                }
            }
            Payload::End(_) => {
                let Some(Open { encoding, size, .. }) = open.pop() else { continue };
                match (encoding, open.last_mut()) {
                    (_, None) => return Ok(size),
                    (Encoding::Module, Some(around)) => {
                        around.modules.push(size);
                        largest_module = largest_module.max(size);
                    }
                    (Encoding::Component, Some(around)) => {
                        around.components.push(size);
                        largest_component = largest_component.max(size);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(0)
}

/// The one that so many enclose less than what is open at this depth.
fn outer(open: &[Open], depth: usize, count: u32) -> Option<&Open> {
    open.get((depth - 1).checked_sub(count as usize)?)
}

fn add(size: &mut usize, count: u32, each: usize) {
    *size = size.saturating_add(each.saturating_mul(count as usize));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> usize {
        instance_size(&wat::parse_str(text).expect("valid text")).expect("well-formed")
    }

    #[test]
    fn an_instance_takes_what_its_module_has() {
        assert_eq!(size("(module (memory 1) (table 1 funcref))"), 0);
        assert_eq!(size(r#"(module (import "a" "f" (func)) (import "a" "m" (memory 1)) (func) (func))"#), 5 * 32);
        assert_eq!(size("(module (global i32 (i32.const 1)) (global i64 (i64.const 1)))"), 32);
        let segments =
            r#"(module (memory 1) (data "a") (data (i32.const 0) "b") (func) (elem func 0 0 0) (elem declare func 0))"#;
        assert_eq!(size(segments), 12 + 32 + 3 * 16);
    }

    #[test]
    fn a_component_takes_what_its_instances_do_wherever_their_modules_are_from() {
        let text = r#"(component
            (core module $one (func) (func))
            (core module $none)
            (core instance (instantiate $none))
            (core instance (instantiate $one))
            (component $inner
                (alias outer 1 0 (core module $again))
                (core module $three (func) (func) (func))
                (core instance (instantiate $again))
                (core instance (instantiate $three)))
            (component $outer
                (alias outer 1 0 (component $inner))
                (instance (instantiate $inner))
                (instance (instantiate $inner)))
            (instance (instantiate $outer))
            (instance (instantiate $inner)))"#;
        assert_eq!(size(text), 2 * 32 + 3 * 5 * 32);
    }

    #[test]
    fn what_cannot_be_followed_counts_as_the_largest() {
        let text = r#"(component
            (component $c (core module $m (func) (func) (func)) (export "m" (core module $m)))
            (instance $i (instantiate $c))
            (alias export $i "m" (core module $m))
            (core instance (instantiate $m)))"#;
        assert_eq!(size(text), 3 * 32);
    }

    #[test]
    fn a_file_that_grows_without_end_is_too_large() {
        let mut text = String::from(
            "(component (core module $m (func)) (component $c0 (alias outer 1 0 (core module $m)) (core instance (instantiate $m)))",
        );
        for level in 1..80 {
            let inner = level - 1;
            text += &format!(
                "(component $c{level} (alias outer 1 {inner} (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))"
            );
        }
        text += "(instance (instantiate $c79)))";
        assert_eq!(size(&text), usize::MAX);
    }
}
