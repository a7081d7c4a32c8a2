// Communicators as JavaScript holds them: of an engine, and of a transport of the caller's.
#pragma once
#include <napi.h>
#include <memory>
#include "distributed/mpi.h"
#include "distributed/device_carrier.h"

namespace diralign {

using CommunicatorHandle = Napi::External<std::shared_ptr<Communicator>>;
/// Empty until the ranks have found each other.
using CarrierHandle = Napi::External<std::shared_ptr<DeviceCarrier>>;

inline std::shared_ptr<Communicator> communicator_of(Napi::Value handle) {
  return *handle.As<CommunicatorHandle>().Data();
}
inline std::shared_ptr<MpiCommunicator> mpi_communicator_of(Napi::Value handle) {
  return std::static_pointer_cast<MpiCommunicator>(communicator_of(handle));
}

/// Adds what makes, uses and ends them.
void export_communicators(Napi::Object exports);

}  // namespace diralign
