// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "system/vmm/accelerator.h"
#include "util/try.h"

namespace ferry::vmm {
namespace {

std::vector<AcceleratorOptions> named(std::initializer_list<std::string> names) {
    std::vector<AcceleratorOptions> options;
    for (const std::string& name : names) options.emplace_back(name);
    return options;
}

Result<std::unique_ptr<kvm::Kvm>> no_kvm() {
    return make_error(ErrorKind::Unsupported, "no such device");
}
Result<std::unique_ptr<kvm::Kvm>> some_kvm() {
    return std::unique_ptr<kvm::Kvm>();
}

TEST(Accelerator, TheFirstThatWorksIsChosen) {
    EXPECT_EQ(choose_accelerator(named({"tcg", "kvm", "qtest"}), some_kvm)->kind,
              AcceleratorKind::Kvm);
    EXPECT_EQ(choose_accelerator(named({"kvm", "tcg", "qtest"}), no_kvm)->kind,
              AcceleratorKind::Qtest);
    EXPECT_EQ(choose_accelerator(named({"qtest", "kvm"}), some_kvm)->kind, AcceleratorKind::Qtest);
}

TEST(Accelerator, NoneUsableGivesTheReasonOfEach) {
    const auto chosen = choose_accelerator(named({"tcg", "kvm"}), no_kvm);
    ASSERT_FALSE(chosen);
    EXPECT_EQ(chosen.error().message(),
              "no accelerator can be used: -accel tcg: invalid accelerator; there are kvm and "
              "qtest; -accel kvm: no such device");
}

}  // namespace
}  // namespace ferry::vmm
