#include "node_values.h"
#include "gpu.h"
#include "layer_plan.h"

namespace diralign {

Untyped untyped(Napi::Value value) {
  Untyped view;
  if (!value.IsTypedArray()) return view;
  napi_value buffer;
  size_t offset;
  if (napi_get_typedarray_info(value.Env(), value, &view.type, &view.elements, &view.data, &buffer, &offset) != napi_ok)
    throw Napi::Error::New(value.Env(), "diralign: unreadable typed array");
  view.bytes = value.As<Napi::TypedArray>().ByteLength();
  return view;
}

uint64_t unsigned_integer(Napi::Value value) {
  bool lossless;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

Napi::Error to_javascript(Napi::Env env, const std::exception& error) {
  if (const auto* workspace = dynamic_cast<const WorkspaceTooSmall*>(&error)) {
    Napi::Error result = Napi::Error::New(env, workspace->what());
    result.Set("name", Napi::String::New(env, "WorkspaceTooSmall"));
    result.Set("needed", Napi::Number::New(env, double(workspace->needed)));
    return result;
  }
  const auto* cuda = dynamic_cast<const gpu::Error*>(&error);
  if (!cuda) return Napi::Error::New(env, std::string("diralign: ") + error.what());
  Napi::Error result = Napi::Error::New(env, cuda->what());
  result.Set("name", Napi::String::New(env, cuda->name));
  result.Set("code", Napi::Number::New(env, cuda->code));
  return result;
}

}  // namespace diralign
