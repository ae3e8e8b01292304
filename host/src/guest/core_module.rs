//! Whether a core module is a program: what is in its outermost sections, noted while `module.rs` walks over them.
//!
//! A program for WASI 0.1 exports a function `_start` that takes and returns nothing, and, if it imports anything of WASI's, the memory that
//! WASI's functions read and write. A module that lacks one of these would fail at every request. Pure.

use wasmparser::{BinaryReaderError, CompositeInnerType, ExternalKind, Payload, TypeRef};

use super::preview1;

/// What a program begins with.
pub(super) const START: &str = "_start";

/// What is known so far.
#[derive(Default)]
pub(super) struct CoreModule {
    /// Whether each type is that of a function which takes and returns nothing.
    types: Vec<bool>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    imports_wasi: bool,
    /// The function `_start`.
    start: Option<u32>,
    has_memory: bool,
}

impl CoreModule {
    /// Takes the next section in.
    ///
    /// # Errors
    /// It is malformed.
    pub(super) fn note(&mut self, section: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match section {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    self.types.extend(group?.types().map(|ty| match &ty.composite_type.inner {
                        CompositeInnerType::Func(ty) => ty.params().is_empty() && ty.results().is_empty(),
                        _ => false,
                    }));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let import = import?;
                    self.imports_wasi |= import.module == preview1::MODULE;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.ty {
                        self.functions.push(ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.functions.push(ty?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    match (export.name, export.kind) {
                        (START, ExternalKind::Func | ExternalKind::FuncExact) => self.start = Some(export.index),
                        ("memory", ExternalKind::Memory) => self.has_memory = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is missing, to be read after "without"; none if it is a program.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        let Some(start) = self.start else { return Some("a function `_start`") };
        let ty = self.functions.get(start as usize);
        let is_plain = ty.and_then(|ty| self.types.get(*ty as usize)).copied().unwrap_or_default();
        if !is_plain {
            return Some("a `_start` that takes and returns nothing");
        }
        (self.imports_wasi && !self.has_memory).then_some("a memory exported as `memory`, which WASI 0.1 works on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(wat: &str) -> Option<&'static str> {
        let bytes = wat::parse_str(wat).expect("valid text");
        let mut module = CoreModule::default();
        for section in wasmparser::Parser::new(0).parse_all(&bytes) {
            module.note(&section.expect("well-formed")).expect("well-formed");
        }
        module.lacks()
    }

    #[test]
    fn a_start_is_a_function_that_takes_and_returns_nothing() {
        assert_eq!(lacks(r#"(module (func (export "_start")))"#), None);
        assert_eq!(
            lacks(r#"(module (type (func (param i32))) (type $plain (func)) (func (export "_start") (type $plain)))"#),
            None
        );
        let none = Some("a function `_start`");
        assert_eq!(lacks("(module)"), none);
        assert_eq!(lacks(r#"(module (global (export "_start") i32 (i32.const 0)))"#), none);
        let other = Some("a `_start` that takes and returns nothing");
        assert_eq!(lacks(r#"(module (func (export "_start") (param i32)))"#), other);
        assert_eq!(lacks(r#"(module (func (export "_start") (result i32) (i32.const 0)))"#), other);
        // Imported functions are counted too.
        let import = r#"(import "env" "f" (func (param i32)))"#;
        assert_eq!(lacks(&format!(r#"(module {import} (func (export "_start")))"#)), None);
    }

    #[test]
    fn who_imports_wasi_has_a_memory_for_it() {
        let import = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;
        let with = |memory: &str| lacks(&format!(r#"(module {import} {memory} (func (export "_start")))"#));
        assert_eq!(with(r#"(memory (export "memory") 1)"#), None);
        for memory in
            ["", "(memory 1)", r#"(memory (export "mem") 1)"#, r#"(global (export "memory") i32 (i32.const 0))"#]
        {
            assert_eq!(with(memory), Some("a memory exported as `memory`, which WASI 0.1 works on"), "{memory}");
        }
    }
}
