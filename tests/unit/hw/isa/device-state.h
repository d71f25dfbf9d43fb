// SPDX-License-Identifier: BSD-2-Clause
// Migrating one platform device inside a test.
#pragma once

#include <vector>

#include "migration/vmstate.h"
#include "util/try.h"

namespace ferry::test {

template <typename Device>
std::vector<std::byte> save_device(Device& device) {
    migration::MemorySink sink;
    migration::SaveStream out(sink);
    Device::vmstate().save(&device.state(), out);
    (void)out.flush();
    return sink.take();
}

template <typename Device>
Result<> load_device(Device& device, ConstBytes bytes) {
    migration::MemorySource source(bytes);
    migration::LoadStream in(source);
    return Device::vmstate().load(&device.state(), in, Device::vmstate().version());
}

// What a device that is changed before it is saved makes of the destination.
template <typename Device>
Result<> migrate_device(Device& from, Device& to) {
    return load_device(to, save_device(from));
}

}  // namespace ferry::test
