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

/// The bindings of both versions have these functions, and no trait in common.
macro_rules! link {
    ($link:ident, $instance:expr, $types:ident, $request:literal, $Request:ty, $HostRequest:ident) => {
        /// Replaces what fills heads in a linker that has wasmtime-wasi-http's `wasi:http/types` of that version, and allows shadowing.
        pub(crate) fn $link(linker: &mut Linker<State>) -> Result<()> {
            let mut types = linker.instance($instance)?;
            counted(&mut types, "[method]fields.append", appended, |state, (fields, name, value)| {
                told($types::HostFields::append(&mut state.http(), fields, name, value), |error| error.downcast())
            })?;
            counted(&mut types, "[method]fields.set", set, |state, (fields, name, values)| {
                told($types::HostFields::set(&mut state.http(), fields, name, values), |error| error.downcast())
            })?;
            counted(&mut types, "[static]fields.from-list", listed, |state, (entries,)| {
                told($types::HostFields::from_list(&mut state.http(), entries), |error| error.downcast())
            })?;
            counted(&mut types, "[method]fields.clone", cloned, |state, (fields,)| {
                $types::HostFields::clone(&mut state.http(), fields)
            })?;
            let method = |_: &State, (_, method): &(Resource<$Request>, $types::Method)| {
                Ok(if let $types::Method::Other(method) = method { method.len() } else { 0 })
            };
            counted(&mut types, concat!("[method]", $request, ".set-method"), method, |state, (request, method)| {
                $HostRequest::set_method(&mut state.http(), request, method)
            })?;
            let text =
                |_: &State, (_, text): &(Resource<$Request>, Option<String>)| Ok(text.as_ref().map_or(0, String::len));
            counted(
                &mut types,
                concat!("[method]", $request, ".set-path-with-query"),
                text,
                |state, (request, path)| $HostRequest::set_path_with_query(&mut state.http(), request, path),
            )?;
            counted(&mut types, concat!("[method]", $request, ".set-authority"), text, |state, (request, authority)| {
                $HostRequest::set_authority(&mut state.http(), request, authority)
            })
        }
    };
}

link!(link_02, HTTP_TYPES, types02, "outgoing-request", Request02, HostOutgoingRequest);
link!(link_03, "wasi:http/types@0.3.0", types03, "request", Request03, HostRequest);

/// Adds a function of which each call is charged with its size first.
fn counted<P, R>(
    types: &mut LinkerInstance<'_, State>,
    name: &str,
    size: impl Fn(&State, &P) -> Result<usize> + Send + Sync + 'static,
    call: impl Fn(&mut State, P) -> Result<R> + Send + Sync + 'static,
) -> Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    R: ComponentType + Lower + 'static,
{
    types.func_wrap(name, move |mut store: StoreContextMut<'_, State>, arguments: P| {
        let state = store.data_mut();
        let size = size(state, &arguments)?;
        state.charge_head(size)?;
        Ok((call(state, arguments)?,))
    })
}

fn appended(_: &State, (_, name, value): &(Fields, String, Vec<u8>)) -> Result<usize> {
    Ok(name.len() + value.len() + 2 * FIELD)
}

fn set(_: &State, (_, name, values): &(Fields, String, Vec<Vec<u8>>)) -> Result<usize> {
    Ok(name.len() + FIELD + values.iter().map(|value| value.len() + FIELD).sum::<usize>())
}

fn listed(_: &State, (entries,): &(Vec<(String, Vec<u8>)>,)) -> Result<usize> {
    Ok(entries.iter().map(|(name, value)| name.len() + value.len() + 2 * FIELD).sum())
}

/// A clone shares its text until it is changed.
fn cloned(state: &State, (fields,): &(Fields,)) -> Result<usize> {
    let fields = state.table.get(fields)?;
    Ok(fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 2 * FIELD).sum())
}

/// What the guest is told about its fields; an error of ours traps.
fn told<T, E, C>(result: Result<T, E>, code: impl FnOnce(E) -> Result<C>) -> Result<Result<T, C>> {
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
