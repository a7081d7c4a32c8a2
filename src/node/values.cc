#include "values.h"
#include "backends/device.h"
#include "distributed/communicator.h"
#include "jobs/plan.h"
#include "jobs/memory.h"

namespace diralign {

Untyped untyped(Napi::Value value) {
  Untyped view;
  view.is_array = value.IsTypedArray();
  if (!view.is_array) return view;
  napi_value buffer;
  size_t offset;
  if (napi_get_typedarray_info(value.Env(), value, &view.type, &view.elements, &view.data, &buffer,
                               &offset) != napi_ok)
    throw Napi::Error::New(value.Env(), "diralign: unreadable typed array");
  return view;
}

size_t Untyped::bytes() const {
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: return 2 * elements;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return 4 * elements;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: return 8 * elements;
    default: return elements;
  }
}

void* typed_data(Napi::Value value, const char* name, napi_typedarray_type type, size_t elements) {
  const Untyped u = untyped(value);
  if (!u.is_array && value.IsUndefined()) return nullptr;
  const bool is_typed = u.is_array && u.type == type;
  if (!is_typed || u.elements < elements)
    throw Refused(std::string(name) + ": " +
                  (is_typed ? std::to_string(u.elements) + " elements" : "another type") +
                  " at the computation; expected at least " + std::to_string(elements) +
                  " elements");
  return u.data;
}

uint64_t unsigned_integer(Napi::Value value) {
  bool lossless;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

Napi::Error to_javascript(Napi::Env env, const std::exception& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  auto name = [&](const std::string& text) { result.Set("name", Napi::String::New(env, text)); };
  auto number = [&](const char* key, double value) {
    result.Set(key, Napi::Number::New(env, value));
  };
  if (const auto* workspace = dynamic_cast<const WorkspaceTooSmall*>(&error)) {
    name("WorkspaceTooSmall");
    number("bytes", double(workspace->needed));
  } else if (const auto* memory = dynamic_cast<const OutOfMemory*>(&error)) {
    name("OutOfMemory");
    number("bytes", double(memory->bytes));
  } else if (dynamic_cast<const std::bad_alloc*>(&error) ||
             dynamic_cast<const std::length_error*>(&error)) {
    name("OutOfMemory");
  } else if (dynamic_cast<const Refused*>(&error)) {
    name("Refused");
  } else if (const auto* distributed = dynamic_cast<const DistributedError*>(&error)) {
    name("DistributedError");
    result.Set("code", Napi::String::New(env, distributed->code));
  } else if (const auto* cuda = dynamic_cast<const DeviceError*>(&error)) {
    name(cuda->name);
    number("code", cuda->code);
  }
  return result;
}

}  // namespace diralign
