// Device memory, streams and events for JavaScript: translation, and nothing else. See `NativeCuda`
// in ts/native/interface.ts for the shapes; arguments were validated by ts/device/.
// Addresses and handles are bigints.
#include "device.h"
#include "environment.h"
#include "backends/backend.h"
#include "values.h"

namespace diralign {

namespace {

using Owned = Environment::Owned;

const DeviceApi& api() { return *device_backend().device; }

int device_argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::Number>().Int32Value();
}
size_t size_argument(const Napi::CallbackInfo& info, size_t index) {
  return size_t(info[index].As<Napi::Number>().Int64Value());
}
uint64_t handle_argument(const Napi::CallbackInfo& info, size_t index) {
  return unsigned_integer(info[index]);
}
void* address_argument(const Napi::CallbackInfo& info, size_t index) {
  return reinterpret_cast<void*>(uintptr_t(handle_argument(info, index)));
}
Napi::Value handle_result(const Napi::CallbackInfo& info, uint64_t handle) {
  return Napi::BigInt::New(info.Env(), handle);
}
uint64_t as_handle(const void* pointer) { return uint64_t(reinterpret_cast<uintptr_t>(pointer)); }

Napi::Value status(const Napi::CallbackInfo& info) {
  const DeviceStatus s = has_device_backend() ? api().status() : DeviceStatus{};
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("compiled", s.compiled);
  result.Set("architectures", s.architectures);
  result.Set("ptx", s.ptx);
  result.Set("runtime", s.runtime);
  result.Set("driver", s.driver);
  result.Set("error", s.error);
  result.Set("errorText", s.error_text);
  result.Set("devices", s.devices);
  return result;
}

/// layerProblem(): why output layers cannot be computed on a device, or an empty string.
Napi::Value layer_problem(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), api().layer_problem());
}

Napi::Value device(const Napi::CallbackInfo& info) {
  const DeviceProperties d = api().properties(device_argument(info, 0));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("index", info[0]);
  result.Set("name", d.name);
  result.Set("uuid", d.uuid);
  result.Set("computeCapability", std::to_string(d.major) + "." + std::to_string(d.minor));
  result.Set("multiprocessors", d.multiprocessors);
  result.Set("memory", double(d.memory));
  result.Set("l2Cache", double(d.l2_cache));
  result.Set("sharedMemory", double(d.shared_memory));
  result.Set("memoryBandwidth", d.memory_bandwidth);
  return result;
}

Napi::Value free_memory(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(api().free_memory(device_argument(info, 0))));
}

/// kernelResidency(device): dtypes and pass as numbers.
Napi::Value kernel_residency(const Napi::CallbackInfo& info) {
  Napi::Array result = Napi::Array::New(info.Env());
  for (const KernelResidency& k : api().kernel_residency(device_argument(info, 0))) {
    Napi::Object kernel = Napi::Object::New(info.Env());
    kernel.Set("logits", int(k.logits));
    kernel.Set("gradient", int(k.gradient));
    kernel.Set("pass", k.pass);
    kernel.Set("blocks", k.blocks);
    result.Set(result.Length(), kernel);
  }
  return result;
}

/// clusterResidency(device): the dtype as a number.
Napi::Value cluster_residency(const Napi::CallbackInfo& info) {
  Napi::Array result = Napi::Array::New(info.Env());
  for (const ClusterResidency& c : api().cluster_residency(device_argument(info, 0))) {
    Napi::Object size = Napi::Object::New(info.Env());
    size.Set("logits", int(c.logits));
    size.Set("parts", c.parts);
    size.Set("clusters", c.clusters);
    result.Set(result.Length(), size);
  }
  return result;
}

/// layerAlgorithms(device, dtype, vocab, hidden)
Napi::Value layer_algorithms(const Napi::CallbackInfo& info) {
  const auto dtype = static_cast<Dtype>(info[1].As<Napi::Number>().Int32Value());
  const LayerAlgorithms found =
      api().layer_algorithms(device_argument(info, 0), dtype, int64_t(size_argument(info, 2)),
                             int64_t(size_argument(info, 3)));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("offered", found.offered);
  result.Set("usable", found.usable);
  return result;
}

/// allocate(device, bytes)
Napi::Value allocate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int on = device_argument(info, 0);
  const size_t bytes = size_argument(info, 1);
  void* pointer = api().allocate(on, bytes);
  Environment::of(env).own(Owned::memory, as_handle(pointer),
                           [on, pointer] { api().release(on, pointer); });
  // The collector sees the small object only; this tells it what hangs on that.
  Napi::MemoryManagement::AdjustExternalMemory(env, int64_t(bytes));
  return handle_result(info, as_handle(pointer));
}

/// release(pointer, bytes)
Napi::Value release(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::MemoryManagement::AdjustExternalMemory(env, -int64_t(size_argument(info, 1)));
  Environment::of(env).free(Owned::memory, handle_argument(info, 0));
  return env.Undefined();
}

/// inspect(pointer, bytes)
Napi::Value inspect(const Napi::CallbackInfo& info) {
  const PointerInfo p = api().inspect(address_argument(info, 0), size_argument(info, 1));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("kind", PointerInfo::kind_names[int(p.kind)]);
  result.Set("device", p.device);
  result.Set("base", Napi::BigInt::New(info.Env(), as_handle(p.base)));
  result.Set("bytes", double(p.bytes));
  return result;
}

/// pin(bytes): the address, for unpin.
Napi::Value pin(const Napi::CallbackInfo& info) {
  const Untyped host = untyped(info[0]);
  api().pin(host.data, host.bytes());
  Environment::of(info.Env()).own(Owned::pinned, as_handle(host.data), [data = host.data] {
    api().unpin(data);
  });
  return handle_result(info, as_handle(host.data));
}
Napi::Value unpin(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).free(Owned::pinned, handle_argument(info, 0));
  return info.Env().Undefined();
}

/// copy(toDevice, device, stream, pointer, bytes, done?)
Napi::Value copy(const Napi::CallbackInfo& info) {
  const bool to_device = info[0].As<Napi::Boolean>();
  const int on = device_argument(info, 1);
  const Stream stream = Stream(handle_argument(info, 2));
  void* pointer = address_argument(info, 3);
  const Untyped host = untyped(info[4]);
  auto work = [=] {
    if (to_device) api().copy_to_device(on, stream, pointer, host.data, host.bytes());
    else api().copy_to_host(on, stream, host.data, pointer, host.bytes());
  };
  if (info[5].IsFunction()) {
    // Nothing of a job but that it can be waited for.
    return Environment::of(info.Env())
        .start(std::make_unique<Job>(), work, false, info[4].As<Napi::Object>(),
               info[5].As<Napi::Function>());
  }
  work();
  return info.Env().Undefined();
}

/// copyOnDevice(device, stream, to, from, bytes)
Napi::Value copy_on_device(const Napi::CallbackInfo& info) {
  api().copy_on_device(device_argument(info, 0), Stream(handle_argument(info, 1)),
                       address_argument(info, 2), address_argument(info, 3),
                       size_argument(info, 4));
  return info.Env().Undefined();
}
/// copyKernel(device, stream, to, from, bytes)
Napi::Value copy_kernel(const Napi::CallbackInfo& info) {
  api().copy_kernel(device_argument(info, 0), Stream(handle_argument(info, 1)),
                    address_argument(info, 2), address_argument(info, 3), size_argument(info, 4));
  return info.Env().Undefined();
}
/// fill(device, stream, pointer, byte, bytes)
Napi::Value fill(const Napi::CallbackInfo& info) {
  api().fill(device_argument(info, 0), Stream(handle_argument(info, 1)), address_argument(info, 2),
             info[3].As<Napi::Number>().Int32Value(), size_argument(info, 4));
  return info.Env().Undefined();
}

/// createStream(device)
Napi::Value create_stream(const Napi::CallbackInfo& info) {
  const int on = device_argument(info, 0);
  const Stream stream = api().create_stream(on);
  Environment::of(info.Env()).own(Owned::stream, stream, [on, stream] {
    api().destroy_stream(on, stream);
  });
  return handle_result(info, stream);
}
Napi::Value destroy_stream(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).free(Owned::stream, handle_argument(info, 0));
  return info.Env().Undefined();
}
/// synchronize(device, stream)
Napi::Value synchronize(const Napi::CallbackInfo& info) {
  api().synchronize(device_argument(info, 0), Stream(handle_argument(info, 1)));
  return info.Env().Undefined();
}

/// createEvent(device, timing)
Napi::Value create_event(const Napi::CallbackInfo& info) {
  const int on = device_argument(info, 0);
  const Event event = api().create_event(on, info[1].As<Napi::Boolean>());
  Environment::of(info.Env()).own(Owned::event, event, [on, event] {
    api().destroy_event(on, event);
  });
  return handle_result(info, event);
}
Napi::Value destroy_event(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).free(Owned::event, handle_argument(info, 0));
  return info.Env().Undefined();
}
/// record(device, event, stream)
Napi::Value record(const Napi::CallbackInfo& info) {
  api().record(device_argument(info, 0), Event(handle_argument(info, 1)),
               Stream(handle_argument(info, 2)));
  return info.Env().Undefined();
}
/// wait(device, stream, event)
Napi::Value wait(const Napi::CallbackInfo& info) {
  api().wait(device_argument(info, 0), Stream(handle_argument(info, 1)),
             Event(handle_argument(info, 2)));
  return info.Env().Undefined();
}
/// ended(device, event)
Napi::Value ended(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(),
                            api().ended(device_argument(info, 0), Event(handle_argument(info, 1))));
}
/// synchronizeEvent(device, event)
Napi::Value synchronize_event(const Napi::CallbackInfo& info) {
  api().synchronize_event(device_argument(info, 0), Event(handle_argument(info, 1)));
  return info.Env().Undefined();
}
/// milliseconds(device, from, to)
Napi::Value milliseconds(const Napi::CallbackInfo& info) {
  return Napi::Number::New(
      info.Env(), api().milliseconds(device_argument(info, 0), Event(handle_argument(info, 1)),
                                     Event(handle_argument(info, 2))));
}

}  // namespace

Napi::Object cuda_exports(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  export_function<status>(exports, "status");
  export_function<layer_problem>(exports, "layerProblem");
  export_function<device>(exports, "device");
  export_function<free_memory>(exports, "freeMemory");
  export_function<kernel_residency>(exports, "kernelResidency");
  export_function<cluster_residency>(exports, "clusterResidency");
  export_function<layer_algorithms>(exports, "layerAlgorithms");
  export_function<allocate>(exports, "allocate");
  export_function<release>(exports, "release");
  export_function<inspect>(exports, "inspect");
  export_function<pin>(exports, "pin");
  export_function<unpin>(exports, "unpin");
  export_function<copy>(exports, "copy");
  export_function<copy_on_device>(exports, "copyOnDevice");
  export_function<copy_kernel>(exports, "copyKernel");
  export_function<fill>(exports, "fill");
  export_function<create_stream>(exports, "createStream");
  export_function<destroy_stream>(exports, "destroyStream");
  export_function<synchronize>(exports, "synchronize");
  export_function<create_event>(exports, "createEvent");
  export_function<destroy_event>(exports, "destroyEvent");
  export_function<record>(exports, "record");
  export_function<wait>(exports, "wait");
  export_function<ended>(exports, "ended");
  export_function<synchronize_event>(exports, "synchronizeEvent");
  export_function<milliseconds>(exports, "milliseconds");
  return exports;
}

}  // namespace diralign
