//! The core modules of a component that wraps one: that one, and the two that wit-component puts beside it if functions need its memory. Its
//! memory is not there yet when functions are given to it, so they go through a table: the shim has it, and functions that call what is in it;
//! the fix-ups fill it.

use wasmparser::{
    CompositeInnerType, Element, ElementItems, ElementKind, Export, ExternalKind, FromReader, FuncType, FunctionBody,
    MemoryType, Operator, Parser, Payload, RecGroup, RefType, SectionLimited, Table, TypeRef,
};

use super::is_handler;
use crate::guest::core_module;

/// What the one module calls its memory, and the shim its table.
pub(super) const MEMORY: &str = "memory";
pub(super) const SHIM_TABLE: &str = "$imports";

/// What matters of one.
#[derive(Default)]
pub(super) struct ModuleParts<'a> {
    types: Vec<Option<FuncType>>,
    imports: Vec<wasmparser::Import<'a>>,
    /// The types of its own functions, and their bodies.
    functions: Vec<u32>,
    bodies: Vec<FunctionBody<'a>>,
    tables: Vec<Table<'a>>,
    memories: Vec<MemoryType>,
    exports: Vec<Export<'a>>,
    elements: Vec<Element<'a>>,
    has_start: bool,
    has_others: bool,
}

impl<'a> ModuleParts<'a> {
    pub(super) fn new(module: &'a [u8]) -> Option<ModuleParts<'a>> {
        let mut this = ModuleParts::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload.ok()? {
                Payload::TypeSection(section) => this.types = function_types(section)?,
                Payload::ImportSection(section) => {
                    this.imports = section.into_imports().collect::<Result<_, _>>().ok()?;
                }
                Payload::FunctionSection(section) => this.functions = all(section)?,
                Payload::CodeSectionEntry(body) => this.bodies.push(body),
                Payload::TableSection(section) => this.tables = all(section)?,
                Payload::MemorySection(section) => this.memories = all(section)?,
                Payload::ExportSection(section) => this.exports = all(section)?,
                Payload::ElementSection(section) => this.elements = all(section)?,
                Payload::StartSection { .. } => this.has_start = true,
                Payload::Version { .. }
                | Payload::CodeSectionStart { .. }
                | Payload::CustomSection(_)
                | Payload::End(_) => {}
                _ => this.has_others = true,
            }
        }
        Some(this)
    }

    fn function_type(&self, index: u32) -> Option<FuncType> {
        self.types.get(index as usize)?.clone()
    }

    /// What the main module exports as a handler; `None` if that is not one export.
    pub(super) fn handler(&self) -> Option<&'a str> {
        let mut handlers = self.exports.iter().map(|export| export.name).filter(|name| is_handler(name));
        handlers.next().filter(|_| handlers.next().is_none())
    }

    /// What the main module imports, in its order: from where, what, and its type. `None` if that is more than functions, if it has no
    /// plain `memory`, if something of it runs before the fix-ups do, when calls through the shim trap, or if by itself it would be a program.
    pub(super) fn imports_of_main(&self) -> Option<Vec<(&'a str, &'a str, FuncType)>> {
        let memory = self.exports.iter().find(|it| (it.name, it.kind) == (MEMORY, ExternalKind::Memory))?;
        let memory = self.memories.get(memory.index as usize)?;
        let is_plain = !memory.memory64 && !memory.shared && memory.page_size_log2.is_none();
        if !is_plain || self.has_start || self.exports.iter().any(|export| export.name == core_module::START) {
            return None;
        }
        let imports = self.imports.iter().map(|import| match import.ty {
            TypeRef::Func(ty) => Some((import.module, import.name, self.function_type(ty)?)),
            _ => None,
        });
        imports.collect()
    }

    /// Name and type of each of the shim's functions, if it has nothing else but a table, and each calls what is there at its own number.
    pub(super) fn slots_of_shim(&self) -> Option<Vec<(&'a str, FuncType)>> {
        let has_more = !self.imports.is_empty() || !self.memories.is_empty() || !self.elements.is_empty();
        if has_more || self.has_start || self.has_others {
            return None;
        }
        let ([table], Some((last, exports))) = (&self.tables[..], self.exports.split_last()) else { return None };
        let count = self.functions.len();
        let is_plain =
            table.ty.element_type == RefType::FUNCREF && !table.ty.table64 && table.ty.initial == count as u64;
        let is_exported = (last.name, last.kind) == (SHIM_TABLE, ExternalKind::Table);
        if !is_plain || !is_exported || exports.len() != count {
            return None;
        }
        let slots = exports.iter().zip(&self.bodies).enumerate().map(|(slot, (export, body))| {
            let ty = *self.functions.get(slot)?;
            let function = self.function_type(ty)?;
            let is_own = export.kind == ExternalKind::Func && export.index as usize == slot;
            (is_own && calls_through(body, function.params().len(), slot, ty)?).then_some((export.name, function))
        });
        slots.collect()
    }

    /// Name and type of what the fix-ups put into the shim's table, from its start on, if they have nothing else.
    pub(super) fn slots_of_fixups(&self) -> Option<Vec<(&'a str, FuncType)>> {
        let has_more = !self.functions.is_empty() || !self.tables.is_empty() || !self.memories.is_empty();
        if has_more || !self.exports.is_empty() || self.has_start || self.has_others {
            return None;
        }
        let (mut slots, mut tables) = (Vec::new(), Vec::new());
        for import in self.imports.iter() {
            match import.ty {
                TypeRef::Func(ty) if import.module.is_empty() => slots.push((import.name, self.function_type(ty)?)),
                TypeRef::Table(_) if import.module.is_empty() => tables.push(import.name),
                _ => return None,
            }
        }
        let ([SHIM_TABLE], [segment]) = (&tables[..], &self.elements[..]) else { return None };
        let ElementKind::Active { table_index: None | Some(0), offset_expr } = &segment.kind else { return None };
        let ElementItems::Functions(items) = &segment.items else { return None };
        let mut offset = offset_expr.get_operators_reader();
        let (Operator::I32Const { value: 0 }, Operator::End) = (offset.read().ok()?, offset.read().ok()?) else {
            return None;
        };
        all(items.clone())?.into_iter().map(|item| item as usize).eq(0..slots.len()).then_some(slots)
    }
}

/// Whether a function passes its parameters on to what is in table 0 at this slot, and does nothing else.
fn calls_through(body: &FunctionBody<'_>, params: usize, slot: usize, ty: u32) -> Option<bool> {
    if body.get_locals_reader().ok()?.get_count() != 0 {
        return None;
    }
    let mut operators = body.get_operators_reader().ok()?;
    for param in 0..params {
        let Operator::LocalGet { local_index } = operators.read().ok()? else { return None };
        if local_index as usize != param {
            return None;
        }
    }
    let Operator::I32Const { value } = operators.read().ok()? else { return None };
    let Operator::CallIndirect { type_index, table_index: 0 } = operators.read().ok()? else { return None };
    let Operator::End = operators.read().ok()? else { return None };
    Some(operators.eof() && usize::try_from(value) == Ok(slot) && type_index == ty)
}

fn all<'a, T: FromReader<'a>>(section: SectionLimited<'a, T>) -> Option<Vec<T>> {
    section.into_iter().collect::<Result<_, _>>().ok()
}

/// A module's types: those of functions as the canonical ABI has them, and nothing for any other. They have no subtypes, so where one fits
/// another, or a call, they are equal.
fn function_types(section: SectionLimited<'_, RecGroup>) -> Option<Vec<Option<FuncType>>> {
    let mut types = Vec::new();
    for group in section {
        let group = group.ok()?;
        let is_alone = group.types().len() == 1;
        for ty in group.types() {
            let is_plain = is_alone && ty.is_final && ty.supertype_idx.is_none() && !ty.composite_type.shared;
            types.push(match &ty.composite_type.inner {
                CompositeInnerType::Func(function) if is_plain => Some(function.clone()),
                _ => None,
            });
        }
    }
    Some(types)
}
