//! What wrapped modules can import: the host's functions by interface and name, as core WebAssembly calls them.

use std::{collections::HashMap, mem::MaybeUninit, sync::Arc};

use wasmparser::ValType as Declared;
use wasmtime::{Caller, FuncType, Linker, Result, ValRaw, ValType};

use super::abi::{Core, Lift, Lower, Numbers, Scalar, Source, Target};
use crate::guest::{instance::State, module};

/// What a guest is told that calls the host from its `cabi_realloc`, which may not (`CanonicalABI.md`, `may_leave`).
const WITHIN_REALLOC: &str = "the guest calls the host while it allocates memory for it";

/// Functions of all interfaces, by their names without versions.
#[derive(Default)]
pub(crate) struct Functions(HashMap<&'static str, HashMap<&'static str, Function>>);

/// One of them.
pub(super) struct Function {
    parameters: Arc<[Core]>,
    result: Option<Core>,
    call: Arc<Call>,
}

/// Takes parameters from where it leaves its result.
type Call = dyn Fn(Caller<'_, State>, &mut [MaybeUninit<ValRaw>]) -> Result<()> + Send + Sync;

/// An interface that functions are added to.
pub(super) struct Interface<'a>(&'a mut HashMap<&'static str, Function>);

impl Functions {
    pub(super) fn interface(&mut self, name: &'static str) -> Interface<'_> {
        Interface(self.0.entry(name).or_default())
    }

    /// The function of an interface, whose name may have a version.
    pub(super) fn get(&self, interface: &str, name: &str) -> Option<&Function> {
        self.0.get(module::interface(interface))?.get(name)
    }
}

impl Interface<'_> {
    /// Adds a function whose result is a number, or nothing.
    pub(super) fn scalar<P: Lift, R: Scalar>(
        &mut self,
        name: &'static str,
        call: impl Fn(&mut State, P) -> Result<R> + Send + Sync + 'static,
    ) {
        let mut results = Vec::new();
        R::flatten(&mut results);
        let result = results.pop();
        self.add::<P>(name, None, result, move |caller, parameters, _| {
            Ok(call(caller.data_mut(), parameters)?.number())
        });
    }

    /// Adds a function whose result is written into the guest's memory.
    pub(super) fn func<P: Lift, R: Lower>(
        &mut self,
        name: &'static str,
        call: impl Fn(&mut State, P) -> Result<R> + Send + Sync + 'static,
    ) {
        const { assert!(R::NUMBERS > 1, "the result is a number") };
        self.add::<P>(name, Some(Core::I32), None, move |caller, parameters, place| {
            let result = call(caller.data_mut(), parameters)?;
            // While it is gone, nothing can be called.
            let Some(mut instance) = caller.data_mut().direct.take() else { wasmtime::bail!(WITHIN_REALLOC) };
            Target { caller, instance: &mut instance }.write_result(result, place)?;
            caller.data_mut().direct = Some(instance);
            Ok(0)
        });
    }

    /// `call` gets the parameters, and the place for a result if that is behind them. It returns the result, 0 if it has none.
    fn add<P: Lift>(
        &mut self,
        name: &'static str,
        place: Option<Core>,
        result: Option<Core>,
        call: impl Fn(&mut Caller<'_, State>, P, u64) -> Result<u64> + Send + Sync + 'static,
    ) {
        let mut parameters = Vec::new();
        P::flatten(&mut parameters);
        parameters.extend(place);
        let parameters: Arc<[Core]> = parameters.into();
        let types = Arc::clone(&parameters);
        let call = move |mut caller: Caller<'_, State>, values: &mut [MaybeUninit<ValRaw>]| {
            let Some(instance) = &caller.data().direct else { wasmtime::bail!(WITHIN_REALLOC) };
            let mut from = Source::new(instance.memory.data(&caller), caller.data().limits.hostcall_bytes);
            let mut numbers = Numbers::new(values, &types);
            let lifted = P::lift(&mut numbers, &mut from)?;
            let place = place.map_or(0, |_| numbers.next());
            let number = call(&mut caller, lifted, place)?;
            match result {
                Some(Core::I32) => drop(values[0].write(ValRaw::u32(number as u32))),
                Some(Core::I64) => drop(values[0].write(ValRaw::u64(number))),
                None => {}
            }
            Ok(())
        };
        self.0.insert(name, Function { parameters, result, call: Arc::new(call) });
    }
}

impl Function {
    /// Whether that is the type that it has.
    pub(super) fn is_of(&self, ty: &wasmparser::FuncType) -> bool {
        let declared = |core: &Core| match core {
            Core::I32 => Declared::I32,
            Core::I64 => Declared::I64,
        };
        ty.params().iter().copied().eq(self.parameters.iter().map(declared))
            && ty.results().iter().copied().eq(self.result.iter().map(declared))
    }

    /// Adds it to a linker.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn define(&self, linker: &mut Linker<State>, interface: &str, name: &str) -> Result<()> {
        let core = |core: &Core| match core {
            Core::I32 => ValType::I32,
            Core::I64 => ValType::I64,
        };
        let ty = FuncType::new(linker.engine(), self.parameters.iter().map(core), self.result.iter().map(core));
        let call = Arc::clone(&self.call);
        // SAFETY: there are as many values as parameters, or as results if those are more. It reads just the parameters, which the caller has
        // written, and writes just the result, by the lists that its type is made of: see `add`.
        #[allow(unsafe_code, reason = "parameters by a list of their types, not by Rust's")]
        unsafe { linker.func_new_unchecked(interface, name, ty, move |caller, values| call(caller, values)) }?;
        Ok(())
    }
}
