// SPDX-License-Identifier: BSD-2-Clause
// A PCI function over a device of the fake kernel, in a VM that runs.
#pragma once

#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hw/vfio/container-legacy.h"
#include "hw/vfio/pci-function.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"
#include "util/wire.h"

namespace ferry::test {

inline constexpr unsigned kTableBar = 2;
inline constexpr unsigned kPinInput = 9;  // plus the pin

class PciFunctionTest : public testing::Test {
 protected:
    PciFunctionTest() : device_(kernel_.add_pci_device(name_, 7)) { function_ = *create(); }
    ~PciFunctionTest() override {
        function_.reset();
        io_.reset();
        EXPECT_EQ(kernel_.open_fds(), 0u);
        EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
    }

    // Takes leave of the loop on its thread.
    class Function {
     public:
        Function() = default;
        Function& operator=(std::shared_ptr<vfio::PciFunction> function) {
            function_ = std::move(function);
            return *this;
        }
        vfio::PciFunction* operator->() const { return function_.get(); }
        vfio::PciFunction& operator*() const { return *function_; }
        void set_loop(TestLoop& loop) { loop_ = &loop; }
        void reset() {
            if (!function_) return;
            loop_->run([this] {
                EXPECT_TRUE(function_->leave_guest());
                function_->disconnect();
                function_.reset();
            });
        }

     private:
        std::shared_ptr<vfio::PciFunction> function_;
        TestLoop* loop_ = nullptr;
    };

    Result<std::shared_ptr<vfio::PciFunction>> create() {
        function_.set_loop(loop_);
        if (!io_) io_ = std::move(*host_.open_device(name_));
        vfio::MsiSink sink{.message =
                               [this](uint64_t address, uint32_t data) {
                                   const std::lock_guard lock(mutex_);
                                   messages_.push_back({address, data});
                               },
                           .pin = nullptr};
        if (wires_pins_) {
            sink.pin = [this](unsigned pin, vfio::MsiSink::Level level) {
                EXPECT_EQ(pin, 1u);
                const std::lock_guard lock(mutex_);
                pins_.push_back(level);
            };
            sink.input = [](unsigned pin) { return kPinInput + pin; };
        }
        Result<std::shared_ptr<vfio::PciFunction>> out;
        loop_.run([&] {
            out = vfio::PciFunction::create({.loop = loop_,
                                             .env = env_.env,
                                             .runstate = runstate_,
                                             .io = *io_,
                                             .name = "dev0",
                                             .vendor_bytes = vendor_bytes_,
                                             .sink = std::move(sink),
                                             .routes = routes_,
                                             .memory = device_memory_});
            if (!out) return;
            if (auto up = (*out)->power_up(); !up) {
                out = std::move(up).error();
                return;
            }
            (*out)->connect();
        });
        return out;
    }

    MutBytes config_bytes() { return device_.regions[VFIO_PCI_CONFIG_REGION_INDEX].bytes(); }
    void enable_msix() { function_->config_write(0x42, 2, PCI_MSIX_FLAGS_ENABLE); }
    // Programs a vector and unmasks it.
    void set_vector(unsigned vector, uint64_t address, uint32_t data) {
        std::byte entry[PCI_MSIX_ENTRY_SIZE];
        util::store_le64(entry, address);
        util::store_le32(entry + PCI_MSIX_ENTRY_DATA, data);
        util::store_le32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
        EXPECT_TRUE(function_->bar_write(kTableBar, vector * sizeof(entry), entry));
    }
    void mask_vector(unsigned vector) {
        std::byte control[4];
        util::store_le32(control, PCI_MSIX_ENTRY_CTRL_MASKBIT);
        EXPECT_TRUE(function_->bar_write(
            kTableBar, vector * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, control));
    }
    uint64_t pending_bits() {
        std::byte pba[8];
        EXPECT_TRUE(function_->bar_read(kTableBar, 0x800, pba));
        return util::load_le64(pba);
    }
    std::vector<vfio::MsiMessage> messages() const {
        const std::lock_guard lock(mutex_);
        return messages_;
    }
    std::vector<vfio::MsiSink::Level> pins() const {
        const std::lock_guard lock(mutex_);
        return pins_;
    }
    bool wait_for_messages(size_t count) {
        return loop_.wait_for([&] { return messages().size() >= count; });
    }
    size_t warnings() const { return env_.log.lines().size(); }
    void stop_vm() {
        loop_.run([this] {
            runstate_.stop(system::RunState::Paused, [](const Result<>& r) { EXPECT_TRUE(r); });
        });
    }
    void start_vm() {
        loop_.run([this] { runstate_.start([](const Result<>& r) { EXPECT_TRUE(r); }); });
    }

    const std::string name_ = "0000:3b:00.2";
    TestEnv env_;
    TestLoop loop_{env_.clock};
    system::RunStateController runstate_{loop_, env_.env, system::RunState::Running};
    system::GuestMemory memory_;
    FakeVfioKernel kernel_;
    FakeVfioDevice& device_;
    vfio::VfioKernelHost host_{kernel_, memory_};
    std::unique_ptr<vfio::VfioDeviceIo> io_;
    bool wires_pins_ = true;
    system::InterruptRoutes* routes_ = nullptr;
    system::DeviceMemory* device_memory_ = nullptr;
    vfio::PciConfig::VendorBytes vendor_bytes_ = vfio::PciConfig::VendorBytes::Compared;
    Function function_;

 private:
    mutable std::mutex mutex_;
    std::vector<vfio::MsiMessage> messages_;
    std::vector<vfio::MsiSink::Level> pins_;
};

}  // namespace ferry::test
