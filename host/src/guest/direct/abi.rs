//! The canonical ABI, as far as WASI 0.2 needs it: how values of component types go through calls of core WebAssembly.
//!
//! The rules are those of the component model's `CanonicalABI.md` (flattening, `load`, `store`, `lift_flat`): parameters are numbers, variants
//! have the numbers of their longest case, strings and lists are an address and a length; a result that is more than one number is written where
//! the last parameter says. Text is UTF-8. What a guest gets wrong traps. A handle is one more than the number that the request's table has for
//! it, since no handle is 0.

use std::mem::MaybeUninit;

use wasmtime::{Caller, Func, Memory, Result, TypedFunc, ValRaw, component::Resource};

use crate::guest::instance::State;

/// What a string or list of the guest's may be, together with the others of its call, is `hostcall_bytes` of its limits.
#[derive(Debug, thiserror::Error)]
#[error("too much data is being handed to the host at once")]
struct TooMuch;

/// A core type that values are flattened to. WASI 0.2 has no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Core {
    I32,
    I64,
}

/// What of an instance is needed to pass it values.
pub(crate) struct Instance {
    pub(super) memory: Memory,
    /// `cabi_realloc`, and the same once it is known what type it has: most short requests need none.
    realloc: Option<Func>,
    typed_realloc: Option<TypedFunc<(i32, i32, i32, i32), i32>>,
}

impl Instance {
    pub(super) fn new(memory: Memory, realloc: Option<Func>) -> Self {
        Self { memory, realloc, typed_realloc: None }
    }
}

/// How values of a type look in memory, and as numbers.
pub(super) trait Value: Sized {
    /// Bytes in memory.
    const SIZE: usize;
    const ALIGN: usize;
    /// Numbers that it is as a parameter.
    const NUMBERS: usize;

    fn flatten(into: &mut Vec<Core>);
}

/// What guests hand to the host.
pub(super) trait Lift: Value {
    /// Takes it from parameters.
    ///
    /// # Errors
    /// It is none.
    fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self>;

    /// Takes it from memory. `at` is aligned, and all of it is within the memory.
    ///
    /// # Errors
    /// It is none.
    fn load(from: &mut Source<'_>, at: usize) -> Result<Self>;

    /// Takes so many of them, one after the other. All of them are within the memory.
    ///
    /// # Errors
    /// They are none.
    fn load_all(from: &mut Source<'_>, at: usize, count: usize) -> Result<Vec<Self>> {
        (0..count).map(|index| Self::load(from, at + index * Self::SIZE)).collect()
    }
}

/// What the host hands to guests, in memory.
pub(super) trait Lower: Value {
    /// Writes it. `at` is aligned, and all of it is within the memory.
    ///
    /// # Errors
    /// The guest has no memory for what belongs to it, or traps.
    fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()>;

    /// Writes all of them, one after the other, for which there is room.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn store_all(list: Vec<Self>, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
        list.into_iter().enumerate().try_for_each(|(index, value)| value.store(to, at + index * Self::SIZE))
    }
}

/// What the host hands to guests as one number, or none.
pub(super) trait Scalar: Value {
    fn number(self) -> u64;
}

/// The numbers that a value is flattened to.
pub(super) struct Numbers<'a> {
    raw: &'a [MaybeUninit<ValRaw>],
    types: &'a [Core],
}

impl<'a> Numbers<'a> {
    /// Those of a call of a function that takes these, and perhaps room for a result behind them.
    pub(super) fn new(raw: &'a [MaybeUninit<ValRaw>], types: &'a [Core]) -> Self {
        Self { raw, types }
    }

    /// The next; zero-extended if it has 32 bits.
    pub(super) fn next(&mut self) -> u64 {
        let (Some((raw, more)), Some((ty, types))) = (self.raw.split_first(), self.types.split_first()) else {
            unreachable!("functions are declared by what they take");
        };
        (self.raw, self.types) = (more, types);
        // SAFETY: there is a parameter for each type, which the guest's call has written.
        #[allow(unsafe_code, reason = "parameters and results are in the same place")]
        let raw = unsafe { raw.assume_init_ref() };
        match ty {
            Core::I32 => raw.get_u32().into(),
            Core::I64 => raw.get_u64(),
        }
    }

    /// The next, of which the low half counts: where cases of a variant differ, 32 bits may stand in 64.
    pub(super) fn next_u32(&mut self) -> u32 {
        self.next() as u32
    }

    /// The next so many.
    pub(super) fn take(&mut self, count: usize) -> Self {
        let (raw, types) = (self.raw.split_at(count), self.types.split_at(count));
        (self.raw, self.types) = (raw.1, types.1);
        Self { raw: raw.0, types: types.0 }
    }
}

/// A guest's memory while parameters are taken from it.
pub(super) struct Source<'a> {
    memory: &'a [u8],
    /// Bytes that may still be taken.
    left: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(memory: &'a [u8], most: usize) -> Self {
        Self { memory, left: most }
    }

    /// `count` values of `size` bytes each from there on, which count as so many bytes of the host's.
    fn slice(&mut self, at: u32, count: u32, size: usize, align: usize, costs: usize) -> Result<&'a [u8]> {
        let (at, count) = (at as usize, count as usize);
        if !at.is_multiple_of(align) {
            wasmtime::bail!("a list is not aligned");
        }
        let slice = count.checked_mul(size).and_then(|bytes| self.memory.get(at..at.checked_add(bytes)?));
        let slice = slice.ok_or_else(|| wasmtime::format_err!("a list or string is out of the guest's memory"))?;
        self.left = count.checked_mul(costs).and_then(|bytes| self.left.checked_sub(bytes)).ok_or(TooMuch)?;
        Ok(slice)
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.memory.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(|| wasmtime::format_err!("a value is out of the guest's memory"))
    }

    fn text(&mut self, at: u32, length: u32) -> Result<String> {
        let bytes = self.slice(at, length, 1, 1, 1)?;
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }

    fn list<T: Lift>(&mut self, at: u32, count: u32) -> Result<Vec<T>> {
        self.slice(at, count, T::SIZE, T::ALIGN, size_of::<T>())?;
        T::load_all(self, at as usize, count as usize)
    }
}

/// A guest while results are written into its memory.
pub(super) struct Target<'a, 'store> {
    pub(super) caller: &'a mut Caller<'store, State>,
    pub(super) instance: &'a mut Instance,
}

impl Target<'_, '_> {
    /// Writes a result where its guest wants it.
    ///
    /// # Errors
    /// That is no place for it; or as [`Lower::store`].
    pub(super) fn write_result<R: Lower>(&mut self, result: R, at: u64) -> Result<()> {
        let at = usize::try_from(at)?;
        let size = self.instance.memory.data_size(&*self.caller);
        if !at.is_multiple_of(R::ALIGN) || at.checked_add(R::SIZE).is_none_or(|end| end > size) {
            wasmtime::bail!("the place for a result is not aligned, or out of the guest's memory");
        }
        result.store(self, at)
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.instance.memory.write(&mut *self.caller, at, bytes)?)
    }

    /// Has the guest allocate memory, which is of 32 bits: so are the address, and the length of what has room there.
    fn allocate(&mut self, align: usize, size: usize) -> Result<u32> {
        let size = i32::try_from(size)?;
        let realloc = match &self.instance.typed_realloc {
            Some(realloc) => realloc,
            None => {
                // Validation has seen it, and its type.
                let Some(realloc) = &self.instance.realloc else { wasmtime::bail!("the guest has no `cabi_realloc`") };
                self.instance.typed_realloc.insert(realloc.typed(&*self.caller)?)
            }
        };
        let at = realloc.call(&mut *self.caller, (0, 0, align as i32, size))?;
        let at = at.cast_unsigned();
        let end = (at as usize).checked_add(size.cast_unsigned() as usize);
        if !(at as usize).is_multiple_of(align)
            || end.is_none_or(|end| end > self.instance.memory.data_size(&*self.caller))
        {
            wasmtime::bail!("what `cabi_realloc` returned is not aligned, or out of the guest's memory");
        }
        Ok(at)
    }

    fn write_text(&mut self, at: usize, text: &str) -> Result<()> {
        let address = self.allocate(1, text.len())?;
        self.write(address as usize, text.as_bytes())?;
        (address, text.len() as u32).store(self, at)
    }

    fn write_list<T: Lower>(&mut self, at: usize, list: Vec<T>) -> Result<()> {
        let length = list.len();
        let address = self.allocate(T::ALIGN, length * T::SIZE)?;
        T::store_all(list, self, address as usize)?;
        (address, length as u32).store(self, at)
    }
}

pub(super) fn no_case<T>(number: u32) -> Result<T> {
    wasmtime::bail!("a variant has no case {number}")
}

pub(super) const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// What a variant is flattened to with one case more.
pub(super) fn join<T: Value>(into: &mut Vec<Core>, payload: usize) {
    let mut types = Vec::new();
    T::flatten(&mut types);
    for (index, ty) in types.into_iter().enumerate() {
        match into.get_mut(payload + index) {
            Some(joined) if *joined == ty => {}
            Some(joined) => *joined = Core::I64,
            None => into.push(ty),
        }
    }
}

macro_rules! numbers {
    ($($type:ty: $core:ident { $($load_all:item)? $(, $store_all:item)? })*) => {$(
        impl Value for $type {
            const SIZE: usize = size_of::<$type>();
            const ALIGN: usize = size_of::<$type>();
            const NUMBERS: usize = 1;

            fn flatten(into: &mut Vec<Core>) {
                into.push(Core::$core);
            }
        }

        impl Lift for $type {
            fn lift(numbers: &mut Numbers<'_>, _: &mut Source<'_>) -> Result<Self> {
                Ok(numbers.next() as $type)
            }

            fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
                Ok(<$type>::from_le_bytes(from.array(at)?))
            }

            $($load_all)?
        }

        impl Lower for $type {
            fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
                to.write(at, &self.to_le_bytes())
            }

            $($store_all)?
        }

        impl Scalar for $type {
            fn number(self) -> u64 {
                self.into()
            }
        }
    )*};
}

numbers! {
    u8: I32 {
        fn load_all(from: &mut Source<'_>, at: usize, count: usize) -> Result<Vec<u8>> {
            Ok(from.memory[at..at + count].to_vec()) // it has been looked at that they are there
        },
        fn store_all(list: Vec<u8>, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
            to.write(at, &list)
        }
    }
    u16: I32 {}
    u32: I32 {}
    u64: I64 {}
}

/// Types whose values look like those of another.
macro_rules! alike {
    ($($type:ty $(, of $of:ident: $bound:tt)? => $other:ty;)*) => {$(
        impl$(<$of: $bound>)? Value for $type {
            const SIZE: usize = <$other>::SIZE;
            const ALIGN: usize = <$other>::ALIGN;
            const NUMBERS: usize = <$other>::NUMBERS;

            fn flatten(into: &mut Vec<Core>) {
                <$other>::flatten(into);
            }
        }
    )*};
}

alike! {
    bool => u8;
    Resource<T>, of T: 'static => u32;
    Borrow<T>, of T: 'static => u32;
    String => Pair;
    Vec<T>, of T: Value => Pair;
}

/// What strings and lists look like: an address and a length.
type Pair = (u32, u32);

impl Scalar for bool {
    fn number(self) -> u64 {
        self.into()
    }
}

/// A handle to what the guest owns, which it has no more when it has handed it over.
impl<T: 'static> Lift for Resource<T> {
    fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
        Ok(Self::new_own(number_of(u32::lift(numbers, from)?)?))
    }

    fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
        Ok(Self::new_own(number_of(u32::load(from, at)?)?))
    }
}

impl<T: 'static> Lower for Resource<T> {
    fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
        handle_of(&self).store(to, at)
    }
}

impl<T: 'static> Scalar for Resource<T> {
    fn number(self) -> u64 {
        handle_of(&self).into()
    }
}

fn number_of(handle: u32) -> Result<u32> {
    handle.checked_sub(1).ok_or_else(|| wasmtime::format_err!("unknown handle 0"))
}

/// What the guest calls it.
pub(super) fn handle_of<T: 'static>(resource: &Resource<T>) -> u32 {
    // A table has fewer than 2^32 entries.
    resource.rep() + 1
}

/// A handle that is only lent for the call.
pub(super) struct Borrow<T: 'static>(pub(super) Resource<T>);

impl<T: 'static> Lift for Borrow<T> {
    fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
        Ok(Self(Resource::new_borrow(number_of(u32::lift(numbers, from)?)?)))
    }

    fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
        Ok(Self(Resource::new_borrow(number_of(u32::load(from, at)?)?)))
    }
}

impl Lift for String {
    fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
        let (at, length) = Pair::lift(numbers, from)?;
        from.text(at, length)
    }

    fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
        let (at, length) = Pair::load(from, at)?;
        from.text(at, length)
    }
}

impl Lower for String {
    fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
        to.write_text(at, &self)
    }
}

impl<T: Lift> Lift for Vec<T> {
    fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
        let (at, count) = Pair::lift(numbers, from)?;
        from.list(at, count)
    }

    fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
        let (at, count) = Pair::load(from, at)?;
        from.list(at, count)
    }
}

impl<T: Lower> Lower for Vec<T> {
    fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
        to.write_list(at, self)
    }
}

impl Value for () {
    const SIZE: usize = 0;
    const ALIGN: usize = 1;
    const NUMBERS: usize = 0;

    fn flatten(_: &mut Vec<Core>) {}
}

impl Lift for () {
    fn lift(_: &mut Numbers<'_>, _: &mut Source<'_>) -> Result<Self> {
        Ok(())
    }

    fn load(_: &mut Source<'_>, _: usize) -> Result<Self> {
        Ok(())
    }
}

impl Lower for () {
    fn store(self, _: &mut Target<'_, '_>, _: usize) -> Result<()> {
        Ok(())
    }
}

impl Scalar for () {
    fn number(self) -> u64 {
        0
    }
}

/// Where the fields of a record are, one after the other.
struct Places(usize);

impl Places {
    fn next<T: Value>(&mut self) -> usize {
        let at = self.0.next_multiple_of(T::ALIGN);
        self.0 = at + T::SIZE;
        at
    }
}

/// Records, and the parameters of a function.
macro_rules! tuples {
    ($(($($name:ident $number:tt),+);)*) => {$(
        impl<$($name: Value),+> Value for ($($name,)+) {
            const SIZE: usize = {
                let mut size = 0_usize;
                $(size = size.next_multiple_of($name::ALIGN) + $name::SIZE;)+
                size.next_multiple_of(Self::ALIGN)
            };
            const ALIGN: usize = {
                let mut align = 1;
                $(align = max(align, $name::ALIGN);)+
                align
            };
            const NUMBERS: usize = 0 $(+ $name::NUMBERS)+;

            fn flatten(into: &mut Vec<Core>) {
                $($name::flatten(into);)+
            }
        }

        impl<$($name: Lift),+> Lift for ($($name,)+) {
            fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
                Ok(($($name::lift(numbers, from)?,)+))
            }

            fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
                let mut places = Places(at);
                Ok(($($name::load(from, places.next::<$name>())?,)+))
            }
        }

        impl<$($name: Lower),+> Lower for ($($name,)+) {
            fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
                let mut places = Places(at);
                $(self.$number.store(to, places.next::<$name>())?;)+
                Ok(())
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
}

/// Variants: the number of a case, and what it has.
macro_rules! variant {
    ($type:ty $(, of $($generic:ident)+)? => { $($number:literal $case:ident $(($name:ident: $payload:ty))?;)+ }) => {
        impl$(<$($generic: Value),+>)? Value for $type {
            const SIZE: usize = {
                let size = 0;
                $($(let size = max(size, <$payload>::SIZE);)?)+
                (Self::ALIGN + size).next_multiple_of(Self::ALIGN)
            };
            const ALIGN: usize = {
                let align = 1;
                $($(let align = max(align, <$payload>::ALIGN);)?)+
                align
            };
            const NUMBERS: usize = {
                let numbers = 0;
                $($(let numbers = max(numbers, <$payload>::NUMBERS);)?)+
                1 + numbers
            };

            fn flatten(into: &mut Vec<Core>) {
                into.push(Core::I32);
                let _payload = into.len();
                $($(join::<$payload>(into, _payload);)?)+
            }
        }

        impl$(<$($generic: Lift),+>)? Lift for $type {
            #[allow(unused_variables, reason = "some have no payloads")]
            fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
                let mut numbers = numbers.take(Self::NUMBERS);
                match numbers.next_u32() {
                    $($number => Ok(Self::$case$((<$payload>::lift(&mut numbers, from)?))?),)+
                    number => no_case(number),
                }
            }

            fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
                // All have at most 256 cases, so that the number of one is a byte.
                match u8::load(from, at)?.into() {
                    $($number => Ok(Self::$case$((<$payload>::load(from, at + Self::ALIGN)?))?),)+
                    number => no_case(number),
                }
            }
        }

        impl$(<$($generic: Lower),+>)? Lower for $type {
            fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
                match self {
                    $(Self::$case$(($name))? => {
                        to.write(at, &[$number])?;
                        $($name.store(to, at + Self::ALIGN)?;)?
                    })+
                }
                Ok(())
            }
        }
    };
}

/// Records that have a type of their own.
macro_rules! record {
    ($type:ident { $($field:ident: $of:ty),+ }) => {
        alike! { $type => ($($of,)+); }

        impl Lift for $type {
            fn lift(numbers: &mut Numbers<'_>, from: &mut Source<'_>) -> Result<Self> {
                let ($($field,)+) = Lift::lift(numbers, from)?;
                Ok(Self { $($field),+ })
            }

            fn load(from: &mut Source<'_>, at: usize) -> Result<Self> {
                let ($($field,)+) = Lift::load(from, at)?;
                Ok(Self { $($field),+ })
            }
        }

        impl Lower for $type {
            fn store(self, to: &mut Target<'_, '_>, at: usize) -> Result<()> {
                ($(self.$field,)+).store(to, at)
            }
        }
    };
}

variant! {
    Option<T>, of T => {
        0 None;
        1 Some(value: T);
    }
}

variant! {
    Result<T, E>, of T E => {
        0 Ok(value: T);
        1 Err(error: E);
    }
}

impl Scalar for Result<(), ()> {
    fn number(self) -> u64 {
        self.is_err().into()
    }
}

pub(super) use {alike, record, variant};
