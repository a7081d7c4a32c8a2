// What `cuda` of ts/cuda.ts is made of.
#pragma once
#include <napi.h>

namespace diralign {

/// `NativeCuda` of ts/native.ts.
Napi::Object cuda_exports(Napi::Env env);

}  // namespace diralign
