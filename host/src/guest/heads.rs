//! What a guest may put into heads: counted here for both versions of `wasi:http`, and passed on to wasmtime-wasi-http, under whose names
//! these functions stand. Runs on the worker of the request.

use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentNamedList, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource},
};
use wasmtime_wasi_http::{
    FieldMap, WasiHttpView as _,
    p2::{
        bindings::http::types::{self as types02, HostOutgoingRequest},
        types::HostOutgoingRequest as Request02,
    },
    p3::{
        Request as Request03,
        bindings::http::types::{self as types03, HostRequest},
    },
};

use super::{http::HTTP_TYPES, instance::State};

/// What the guest of one request may put into heads all together, in bytes, [`FIELD`] for each name and value included; beyond that
/// it traps. Nothing is given back for what it drops, since nobody needs as much. Without it each of 4096 handles could hold 128 KiB.
pub(crate) const MOST: usize = 1 << 20;
/// What a name or a value takes beside its text.
const FIELD: usize = 40;

type Fields = Resource<FieldMap>;

/// What replaces wasmtime-wasi-http's functions: the bindings of both versions have these, and no trait in common.
macro_rules! version {
    ($version:ident, $instance:expr, $types:ident, $request:literal, $Request:ty, $HostRequest:ident) => {
        pub(crate) mod $version {
            use super::*;

            type Told<T> = Result<Result<T, $types::HeaderError>>;
            type Set = Result<Result<(), ()>>;

            /// Adds them to a linker that has wasmtime-wasi-http's `wasi:http/types` of that version, and allows shadowing.
            pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
                let mut types = linker.instance($instance)?;
                wrap(&mut types, "[method]fields.append", append)?;
                wrap(&mut types, "[method]fields.set", set)?;
                wrap(&mut types, "[static]fields.from-list", from_list)?;
                wrap(&mut types, "[method]fields.clone", |state, (fields,)| clone(state, fields))?;
                wrap(&mut types, concat!("[method]", $request, ".set-method"), set_method)?;
                wrap(&mut types, concat!("[method]", $request, ".set-path-with-query"), set_path_with_query)?;
                wrap(&mut types, concat!("[method]", $request, ".set-authority"), set_authority)
            }

            pub(crate) fn append(state: &mut State, (fields, name, value): (Fields, String, Vec<u8>)) -> Told<()> {
                state.charge_head(name.len() + value.len() + 2 * FIELD)?;
                told($types::HostFields::append(&mut state.http(), fields, name, value), |error| error.downcast())
            }

            pub(crate) fn set(state: &mut State, (fields, name, values): (Fields, String, Vec<Vec<u8>>)) -> Told<()> {
                state
                    .charge_head(name.len() + FIELD + values.iter().map(|value| value.len() + FIELD).sum::<usize>())?;
                told($types::HostFields::set(&mut state.http(), fields, name, values), |error| error.downcast())
            }

            pub(crate) fn from_list(state: &mut State, (entries,): (Vec<(String, Vec<u8>)>,)) -> Told<Fields> {
                state.charge_head(entries.iter().map(|(name, value)| name.len() + value.len() + 2 * FIELD).sum())?;
                told($types::HostFields::from_list(&mut state.http(), entries), |error| error.downcast())
            }

            pub(crate) fn clone(state: &mut State, fields: Fields) -> Result<Fields> {
                let size = size(state, &fields)?;
                state.charge_head(size)?;
                $types::HostFields::clone(&mut state.http(), fields)
            }

            pub(crate) fn set_method(
                state: &mut State,
                (request, method): (Resource<$Request>, $types::Method),
            ) -> Set {
                state.charge_head(if let $types::Method::Other(method) = &method { method.len() } else { 0 })?;
                $HostRequest::set_method(&mut state.http(), request, method)
            }

            pub(crate) fn set_path_with_query(
                state: &mut State,
                (request, path): (Resource<$Request>, Option<String>),
            ) -> Set {
                state.charge_head(path.as_ref().map_or(0, String::len))?;
                $HostRequest::set_path_with_query(&mut state.http(), request, path)
            }

            pub(crate) fn set_authority(
                state: &mut State,
                (request, authority): (Resource<$Request>, Option<String>),
            ) -> Set {
                state.charge_head(authority.as_ref().map_or(0, String::len))?;
                $HostRequest::set_authority(&mut state.http(), request, authority)
            }
        }
    };
}

version!(v02, HTTP_TYPES, types02, "outgoing-request", Request02, HostOutgoingRequest);
version!(v03, "wasi:http/types@0.3.0", types03, "request", Request03, HostRequest);

fn wrap<P, R>(
    types: &mut LinkerInstance<'_, State>,
    name: &str,
    call: impl Fn(&mut State, P) -> Result<R> + Send + Sync + 'static,
) -> Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    R: ComponentType + Lower + 'static,
{
    types.func_wrap(name, move |mut store: StoreContextMut<'_, State>, arguments: P| {
        Ok((call(store.data_mut(), arguments)?,))
    })
}

/// What a clone of these fields counts: it shares its text until it is changed.
fn size(state: &State, fields: &Fields) -> Result<usize> {
    let fields = state.table.get(fields)?;
    Ok(fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 2 * FIELD).sum())
}

/// What the guest is told; an error of ours traps.
pub(super) fn told<T, E, C>(result: Result<T, E>, code: impl FnOnce(E) -> Result<C>) -> Result<Result<T, C>> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(error) => Ok(Err(code(error)?)),
    }
}

impl State {
    fn charge_head(&mut self, bytes: usize) -> Result<()> {
        match self.heads_left.checked_sub(bytes) {
            Some(left) => self.heads_left = left,
            None => wasmtime::bail!("the guest has made more than {} KiB of headers", MOST >> 10),
        }
        Ok(())
    }
}
