// Values between JavaScript and C++, for the files that export functions.
#pragma once
#include <napi.h>
#include <exception>
#include <string>

namespace diralign {

/// Data and length of a typed array; null and 0 for anything else.
struct Untyped {
  void* data = nullptr;
  size_t bytes = 0, elements = 0;
  napi_typedarray_type type = napi_float32_array;
};
Untyped untyped(Napi::Value value);

/// A bigint of 64 bits: an address or a handle.
uint64_t unsigned_integer(Napi::Value value);

/// A C++ exception as JavaScript sees it. That of CUDA is named after its error and has its number as `code`; WorkspaceTooSmall keeps
/// its name and has the bytes `needed`.
Napi::Error to_javascript(Napi::Env env, const std::exception& error);

/// A C++ exception must not cross into the engine.
template <Napi::Value (*function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& e) {
    throw to_javascript(info.Env(), e);
  }
}

template <Napi::Value (*function)(const Napi::CallbackInfo&)>
void export_function(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<function>>(exports.Env(), name));
}

}  // namespace diralign
