//! Errors as JavaScript knows them: an `Error` whose `name` is `OkyeameError`, with the core's `code`.

use js_sys::Reflect;
use okyeame_core::Error;
use wasm_bindgen::JsValue;

/// An error of the core.
pub(crate) fn js_error(error: Error) -> JsValue {
    with_code(&error.to_string(), error.code())
}

/// A parameter that cannot be read.
pub(crate) fn invalid_parameter(name: &'static str, allowed: &str) -> JsValue {
    js_error(Error::InvalidParameter { name, allowed: allowed.to_owned() })
}

fn with_code(message: &str, code: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    error.set_name("OkyeameError");
    // A new error takes every property.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}
