// What `cuda` of ts/device/cuda.ts is made of.
#pragma once
#include <napi.h>

namespace diralign {

/// `NativeCuda` of ts/native/interface.ts.
Napi::Object cuda_exports(Napi::Env env);

}  // namespace diralign
