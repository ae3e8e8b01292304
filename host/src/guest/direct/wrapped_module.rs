//! Whether a component is nothing but one core module wrapped, and which host functions that module imports then.
//!
//! That is how Rust's `wasm32-wasip2` (wit-component) makes a component of `wasi:http/incoming-handler`: interfaces are imported, their
//! functions lowered for the core module, and its handler lifted. The host can run such a module by itself, with host functions that speak
//! the canonical ABI, and nobody can tell, but by the numbers of handles. Files come from people we do not trust: whatever is not understood
//! here to the last item is no wrapped module, and wasmtime runs it as a component. Pure; the bodies of the module's functions are not
//! validated, compiling does that.

use std::collections::{HashMap, HashSet};

use wasmparser::{
    BinaryReaderError, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternName, ComponentExternalKind,
    ComponentInstance, ComponentType, ComponentTypeRef, ComponentTypeSectionReader, Encoding, ExternalKind, FuncType,
    Instance, InstanceTypeDeclaration, Parser, Payload, Validator,
};

use super::core_modules::{MEMORY, ModuleParts, SHIM_TABLE};
use crate::guest::module;

/// Its allocator, as every wit-bindgen exports it.
pub(super) const REALLOC: &str = "cabi_realloc";
/// The interface of a handler, up to the last number of its version.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";
/// What there is beside the handler if it is built with a `main`. Nobody calls that here.
const PROGRAM: &str = "wasi:cli/run@0.2.";
/// No program of WASI 0.2 has half as many instances, imported and exported together; and it exports a handler, and perhaps a program.
const MOST_INSTANCES: usize = 128;
const MOST_EXPORTS: usize = 2;
/// With the name of a resource: the function that drops one.
const DROP: &str = "[resource-drop]";

/// A component that does what its one core module does.
pub(super) struct WrappedModule<'a> {
    /// The core module's bytes, within the file. It exports `memory`, the handler, and `cabi_realloc` if a function is lowered with that;
    /// it has no start function.
    pub(super) module: &'a [u8],
    /// What the core module imports, in its order.
    pub(super) imports: Vec<Import<'a>>,
}

/// A function that the core module imports: one of the component's imports, lowered.
pub(super) struct Import<'a> {
    /// The core module's own name for the interface, often with an older version than the component's: wit-component merges what wasi-libc
    /// and the crates of a program import into the newest.
    pub(super) interface: &'a str,
    /// The function of the interface, or `[resource-drop]` with the name of its resource.
    pub(super) name: &'a str,
    /// Its core signature: numbers only.
    pub(super) ty: FuncType,
}

/// The core module, if that and what it imports is all there is. The host has yet to compare the imports with what it has. What types the
/// component says that they are is not looked at beyond the core types which follow from them, nor what it calls its handler within its
/// interface: such a guest would not be linked as a component; called directly it gets what it asks for, and reads it as it likes.
///
/// # Errors
/// The file is malformed.
pub(super) fn wrapped_module(file: &[u8]) -> Result<Option<WrappedModule<'_>>, BinaryReaderError> {
    let mut component = Component::default();
    // What encloses the payload that is looked at, outermost first.
    let mut within = Vec::new();
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload?;
        if let Payload::Version { encoding, .. } = payload {
            within.push(encoding);
        }
        let is_end = matches!(payload, Payload::End(_));
        let understood = match within[..] {
            [Encoding::Component] => component.read(file, payload),
            // Modules are looked at once it is known what each is for.
            [Encoding::Component, Encoding::Module] => Some(()),
            [Encoding::Component, Encoding::Component] => only_renames(payload),
            _ => None,
        };
        if understood.is_none() {
            return Ok(None);
        }
        if is_end {
            within.pop();
        }
    }
    Ok(component.wrapped_module().filter(|_| is_valid(file)))
}

/// Whether it is, but for the bodies of its functions. Validation takes the longer the more instances there are of large types, and happens
/// in the process that serves: it comes last, when it is known how few there are.
fn is_valid(file: &[u8]) -> bool {
    let mut validator = Validator::new();
    Parser::new(0).parse_all(file).all(|payload| payload.is_ok_and(|payload| validator.payload(&payload).is_ok()))
}

/// A component's index spaces, as far as they matter. Nothing is known of it before: it may be invalid.
#[derive(Default)]
struct Component<'a> {
    instances: Vec<InterfaceInstance<'a>>,
    funcs: Vec<Func<'a>>,
    /// Where types come from that are an interface's; `None` for all others.
    types: Vec<Option<InterfaceItem<'a>>>,
    modules: Vec<&'a [u8]>,
    core_instances: Vec<CoreInstance<'a>>,
    core_funcs: Vec<CoreFunc<'a>>,
    core_memories: Vec<CoreExport<'a>>,
    core_tables: Vec<CoreExport<'a>>,
    /// Name and instance of what the component exports.
    exports: Vec<(&'a str, u32)>,
}

#[derive(Clone, Copy)]
struct InterfaceItem<'a> {
    interface: &'a str,
    name: &'a str,
}

enum InterfaceInstance<'a> {
    Imported(&'a str),
    /// Made of these functions, and types.
    Made(Vec<u32>),
    /// Another name for one that is made.
    Exported,
}

enum Func<'a> {
    Imported(InterfaceItem<'a>),
    Lifted { core_func: u32, options: Options },
}

/// The export of a core instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CoreExport<'a> {
    instance: usize,
    name: &'a str,
}

enum CoreInstance<'a> {
    Instantiated(Instantiated<'a>),
    Made(Items<'a>),
}

/// The items of an instance that is made of them.
type Items<'a> = HashMap<&'a str, (ExternalKind, u32)>;

struct Instantiated<'a> {
    /// Its own index.
    instance: usize,
    module: usize,
    /// The instance for each name of a module that is imported from.
    args: HashMap<&'a str, u32>,
}

#[derive(Clone, Copy)]
enum CoreFunc<'a> {
    Lowered(InterfaceItem<'a>, Options),
    Drop(InterfaceItem<'a>),
    Exported(CoreExport<'a>),
}

/// The options of lifting and lowering. Strings are UTF-8.
#[derive(Clone, Copy, Default)]
struct Options {
    memory: Option<u32>,
    realloc: Option<u32>,
}

impl Options {
    fn new(options: &[CanonicalOption]) -> Option<Options> {
        let mut these = Options::default();
        for option in options {
            match *option {
                CanonicalOption::UTF8 => {}
                CanonicalOption::Memory(index) => these.memory = Some(index),
                CanonicalOption::Realloc(index) => these.realloc = Some(index),
                _ => return None,
            }
        }
        Some(these)
    }
}

impl<'a> Component<'a> {
    /// Takes in a section of the component; `None` if it has what no wrapped module has.
    fn read(&mut self, file: &'a [u8], payload: Payload<'a>) -> Option<()> {
        match payload {
            Payload::Version { .. } | Payload::CustomSection(_) | Payload::End(_) => {}
            // All of these only rename: which is instantiated does not matter.
            Payload::ComponentSection { .. } => {}
            Payload::ModuleSection { unchecked_range, .. } => self.modules.push(file.get(unchecked_range)?),
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.ok()?;
                    let ComponentTypeRef::Instance(_) = import.ty else { return None };
                    self.instances.push(InterfaceInstance::Imported(plain_name(&import.name)?));
                }
            }
            Payload::ComponentTypeSection(section) => {
                let count = section.count() as usize;
                are_of_interfaces(section)?;
                self.types.resize(self.types.len() + count, None);
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.read_alias(&alias.ok()?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.read_canonical(function.ok()?)?;
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    let instance = match instance.ok()? {
                        Instance::Instantiate { module_index, args } => CoreInstance::Instantiated(Instantiated {
                            instance: self.core_instances.len(),
                            module: module_index as usize,
                            args: args.iter().map(|arg| (arg.name, arg.index)).collect(),
                        }),
                        Instance::FromExports(exports) => CoreInstance::Made(
                            exports.iter().map(|export| (export.name, (export.kind, export.index))).collect(),
                        ),
                    };
                    self.core_instances.push(instance);
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    let items: Vec<_> = match instance.ok()? {
                        ComponentInstance::Instantiate { args, .. } => {
                            args.iter().map(|arg| (arg.kind, arg.index)).collect()
                        }
                        ComponentInstance::FromExports(exports) => {
                            exports.iter().map(|export| (export.kind, export.index)).collect()
                        }
                    };
                    let mut funcs = Vec::new();
                    for (kind, index) in items {
                        match kind {
                            ComponentExternalKind::Type => {}
                            ComponentExternalKind::Func => funcs.push(index),
                            _ => return None,
                        }
                    }
                    self.instances.push(InterfaceInstance::Made(funcs));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.ok()?;
                    let ComponentExternalKind::Instance = export.kind else { return None };
                    self.exports.push((plain_name(&export.name)?, export.index));
                    self.instances.push(InterfaceInstance::Exported);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn read_alias(&mut self, alias: &ComponentAlias<'a>) -> Option<()> {
        match *alias {
            ComponentAlias::InstanceExport { kind, instance_index, name } => {
                let InterfaceInstance::Imported(interface) = self.instances.get(instance_index as usize)? else {
                    return None;
                };
                let item = InterfaceItem { interface, name };
                match kind {
                    ComponentExternalKind::Type => self.types.push(Some(item)),
                    ComponentExternalKind::Func => self.funcs.push(Func::Imported(item)),
                    _ => return None,
                }
            }
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let export = CoreExport { instance: instance_index as usize, name };
                match kind {
                    ExternalKind::Func => self.core_funcs.push(CoreFunc::Exported(export)),
                    ExternalKind::Memory => self.core_memories.push(export),
                    ExternalKind::Table => self.core_tables.push(export),
                    _ => return None,
                }
            }
            ComponentAlias::Outer { .. } => return None,
        }
        Some(())
    }

    fn read_canonical(&mut self, function: CanonicalFunction) -> Option<()> {
        match function {
            CanonicalFunction::Lift { core_func_index, options, .. } => {
                self.funcs.push(Func::Lifted { core_func: core_func_index, options: Options::new(&options)? });
            }
            CanonicalFunction::Lower { func_index, options } => {
                let Func::Imported(item) = self.funcs.get(func_index as usize)? else { return None };
                self.core_funcs.push(CoreFunc::Lowered(*item, Options::new(&options)?));
            }
            CanonicalFunction::ResourceDrop { resource } => {
                let item = (*self.types.get(resource as usize)?)?;
                self.core_funcs.push(CoreFunc::Drop(item));
            }
            _ => return None,
        }
        Some(())
    }

    /// What it is, now that all of it is read.
    fn wrapped_module(&self) -> Option<WrappedModule<'a>> {
        let instantiated = self.core_instances.iter().filter_map(|instance| match instance {
            CoreInstance::Instantiated(it) => Some(it),
            CoreInstance::Made(_) => None,
        });
        let instantiated: Vec<_> = instantiated.collect();
        let made = self.instances.iter().filter(|instance| matches!(instance, InterfaceInstance::Made(_))).count();
        if self.instances.len() > MOST_INSTANCES || made > MOST_EXPORTS || self.exports.len() > MOST_EXPORTS {
            return None;
        }
        // Each module is instantiated once. Of the three, two can do nothing but pass calls on.
        let modules: HashSet<_> = instantiated.iter().map(|it| it.module).collect();
        if modules.len() != self.modules.len() || modules.len() != instantiated.len() {
            return None;
        }
        let (main, passed_on) = match instantiated[..] {
            [main] => (main, HashMap::new()),
            [shim, main, fixups] => (main, self.passed_on(shim, fixups)?),
            _ => return None,
        };

        let module = self.module(main)?;
        let parts = ModuleParts::new(module)?;
        if parts.handler()? != self.handler(main)? {
            return None;
        }
        let mut imports = Vec::new();
        for (interface, name, ty) in parts.imports_of_main()? {
            let function = match self.core_func(self.made(main, interface)?, name)? {
                CoreFunc::Exported(export) => *passed_on.get(&export)?,
                direct => direct,
            };
            let (item, options) = match function {
                CoreFunc::Lowered(it, options) if it.name == name => (it, options),
                CoreFunc::Drop(it) if name.strip_prefix(DROP) == Some(it.name) => (it, Options::default()),
                _ => return None,
            };
            if module::interface(item.interface) != module::interface(interface) {
                return None;
            }
            self.are_of(main, options)?;
            imports.push(Import { interface, name, ty });
        }
        Some(WrappedModule { module, imports })
    }

    /// What the shim's functions pass calls on to, once the fix-ups have filled its table.
    fn passed_on(
        &self,
        shim: &Instantiated<'a>,
        fixups: &Instantiated<'a>,
    ) -> Option<HashMap<CoreExport<'a>, CoreFunc<'a>>> {
        let slots = ModuleParts::new(self.module(shim)?)?.slots_of_shim()?;
        if slots != ModuleParts::new(self.module(fixups)?)?.slots_of_fixups()? {
            return None;
        }
        let items = self.made(fixups, "")?;
        let (ExternalKind::Table, table) = *items.get(SHIM_TABLE)? else { return None };
        if *self.core_tables.get(table as usize)? != (CoreExport { instance: shim.instance, name: SHIM_TABLE }) {
            return None;
        }
        let passed_on = slots
            .iter()
            .map(|(name, _)| Some((CoreExport { instance: shim.instance, name }, self.core_func(items, name)?)));
        passed_on.collect()
    }

    /// What the module calls the component's handler, if that is nothing but a function of the module.
    fn handler(&self, main: &Instantiated<'a>) -> Option<&'a str> {
        let mut others = self.exports.iter().filter(|(name, _)| !name.starts_with(PROGRAM));
        let (Some((interface, instance)), None) = (others.next(), others.next()) else { return None };
        let patch = interface.strip_prefix(HANDLER)?;
        // The instance has no function but the one it is made of, whatever it calls that: components within this one only rename.
        let InterfaceInstance::Made(functions) = self.instances.get(*instance as usize)? else { return None };
        let [function] = functions[..] else { return None };
        let Func::Lifted { core_func, options } = *self.funcs.get(function as usize)? else { return None };
        let CoreFunc::Exported(export) = *self.core_funcs.get(core_func as usize)? else { return None };
        self.are_of(main, options)?;
        let is_handler = export.instance == main.instance
            && export.name.strip_suffix("#handle") == Some(*interface)
            && patch.bytes().all(|byte| byte.is_ascii_digit());
        is_handler.then_some(export.name)
    }

    fn module(&self, instantiated: &Instantiated<'a>) -> Option<&'a [u8]> {
        self.modules.get(instantiated.module).copied()
    }

    /// The instance that is made for what a module imports from one name.
    fn made(&self, instantiated: &Instantiated<'a>, from: &str) -> Option<&Items<'a>> {
        match self.core_instances.get(*instantiated.args.get(from)? as usize)? {
            CoreInstance::Made(items) => Some(items),
            CoreInstance::Instantiated(_) => None,
        }
    }

    fn core_func(&self, items: &Items<'a>, name: &str) -> Option<CoreFunc<'a>> {
        let (ExternalKind::Func, index) = *items.get(name)? else { return None };
        self.core_funcs.get(index as usize).copied()
    }

    /// `None` if memory and allocator, as far as there are any, are not the module's that the host takes.
    fn are_of(&self, main: &Instantiated<'a>, options: Options) -> Option<()> {
        let export = |name| CoreExport { instance: main.instance, name };
        if let Some(memory) = options.memory
            && *self.core_memories.get(memory as usize)? != export(MEMORY)
        {
            return None;
        }
        if let Some(realloc) = options.realloc
            && !matches!(self.core_funcs.get(realloc as usize)?, CoreFunc::Exported(it) if *it == export(REALLOC))
        {
            return None;
        }
        Some(())
    }
}

/// A name that is nothing but that.
fn plain_name<'a>(name: &ComponentExternName<'a>) -> Option<&'a str> {
    let is_plain = name.implements.is_none() && name.version_suffix.is_none() && name.external_id.is_none();
    is_plain.then_some(name.name)
}

/// Passes types of values and functions, and instances of them: what interfaces have.
fn are_of_interfaces(section: ComponentTypeSectionReader<'_>) -> Option<()> {
    for ty in section {
        match ty.ok()? {
            ComponentType::Defined(_) | ComponentType::Func(_) => {}
            ComponentType::Instance(declarations) => {
                declarations.iter().all(is_of_interface).then_some(())?;
            }
            ComponentType::Component(_) | ComponentType::Resource { .. } => return None,
        }
    }
    Some(())
}

fn is_of_interface(declaration: &InstanceTypeDeclaration<'_>) -> bool {
    match declaration {
        InstanceTypeDeclaration::Type(ty) => matches!(ty, ComponentType::Defined(_) | ComponentType::Func(_)),
        InstanceTypeDeclaration::Export { ty, .. } => is_type_or_func(ty),
        InstanceTypeDeclaration::Alias(_) => true,
        InstanceTypeDeclaration::CoreType(_) => false,
    }
}

fn is_type_or_func(ty: &ComponentTypeRef) -> bool {
    matches!(ty, ComponentTypeRef::Type(_) | ComponentTypeRef::Func(_))
}

/// Passes what a component may have that gives its instance nothing but the types and functions which it imports, under other names.
fn only_renames(payload: Payload<'_>) -> Option<()> {
    match payload {
        Payload::ComponentTypeSection(section) => are_of_interfaces(section),
        Payload::ComponentImportSection(section) => {
            let mut imports = section.into_iter();
            imports.all(|import| import.is_ok_and(|import| is_type_or_func(&import.ty))).then_some(())
        }
        Payload::ComponentExportSection(section) => {
            let is_plain = |kind| matches!(kind, ComponentExternalKind::Type | ComponentExternalKind::Func);
            let mut exports = section.into_iter();
            exports.all(|export| export.is_ok_and(|export| is_plain(export.kind))).then_some(())
        }
        Payload::Version { .. } | Payload::CustomSection(_) | Payload::End(_) => Some(()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
