// Values between JavaScript and C++, for the files that export functions.
#pragma once
#include <napi.h>
#include <exception>
#include <stdexcept>
#include <string>
#include "contract.h"

namespace diralign {

/// An argument that is not what ts/ has checked: its memory was taken away in between.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Data and length of a typed array, as the engine knows them; null and 0 for anything else.
struct Untyped {
  bool is_array = false;
  void* data = nullptr;
  size_t elements = 0;
  napi_typedarray_type type = napi_float32_array;

  size_t bytes() const;
};
Untyped untyped(Napi::Value value);

/// The data of a typed array of `type` that holds at least `elements`. Null for undefined.
void* typed_data(Napi::Value value, const char* name, napi_typedarray_type type, size_t elements);

template <class T>
constexpr napi_typedarray_type type_of = napi_bigint64_array;
template <>
inline constexpr napi_typedarray_type type_of<float> = napi_float32_array;
template <>
inline constexpr napi_typedarray_type type_of<double> = napi_float64_array;
template <>
inline constexpr napi_typedarray_type type_of<int32_t> = napi_int32_array;
template <>
inline constexpr napi_typedarray_type type_of<uint16_t> = napi_uint16_array;

/// The data of a property of a request, which holds at least `elements` of T. Null for undefined.
template <class T>
T* elements_of(const Napi::CallbackInfo& request, const Property& at, size_t elements) {
  return static_cast<T*>(typed_data(request[at], at.name, type_of<T>, elements));
}

/// A bigint of 64 bits: an address or a handle.
uint64_t unsigned_integer(Napi::Value value);

/// A C++ exception as JavaScript sees it. An error of CUDA has CUDA's name, and its number as
/// `code`; WorkspaceTooSmall and OutOfMemory keep their names and have the `bytes` that were
/// needed; Refused keeps its name.
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
