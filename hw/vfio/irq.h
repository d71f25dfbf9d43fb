// SPDX-License-Identifier: BSD-2-Clause
// A device's interrupts on their way into the VMM: eventfds that the driver signals and the main
// loop watches. Which index is in use, and which of its vectors, is the caller's wish.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "hw/vfio/vfio-device-io.h"
#include "system/interrupt-routes.h"
#include "system/main-loop.h"
#include "util/event-fd.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::vfio {

// INTx, MSI, MSI-X: a function uses one of them at a time.
inline constexpr uint32_t kPciIrqKinds = 3;

class IrqWiring : public std::enable_shared_from_this<IrqWiring> {
 public:
    // Loop thread. `fd` has been signalled; the receiver consumes it.
    using Fired = std::function<void(uint32_t index, uint32_t vector, const util::EventFd& fd)>;
    using Infos = std::array<IrqInfo, kPciIrqKinds>;

    // Destroyed on the loop thread, before `io` and whatever `fired` refers to.
    // Without `routes` every interrupt goes to `fired`. `input`: where the pin leads, if anywhere.
    static std::shared_ptr<IrqWiring> create(system::MainLoop& loop, VfioDeviceIo& io, Infos infos,
                                             system::InterruptRoutes* routes,
                                             std::optional<unsigned> input, Fired fired);

    struct Wish {
        std::optional<uint32_t> index;  // none: the device's interrupts are off
        std::vector<bool> vectors;      // those that someone waits for; at most the index' count
        friend bool operator==(const Wish&, const Wish&) = default;
    };
    // Calls the driver where the wish differs from what it did last. One thread at a time. After an
    // Error the driver is where the steps before it left it, and this object knows where that is.
    Result<> apply(const Wish& wish);
    // As apply(), one at a time, and after it. Vectors with a message send it by themselves where
    // that is possible; the others, also those that an Error names, go to `fired`.
    Result<> route(std::span<const std::optional<system::MsiMessage>> messages);
    // INTx is masked by the driver when it fires; lets it fire again. As apply(), one at a time.
    Result<> unmask_intx();

    // Any thread. The eventfds of an index; entries of vectors never used are null.
    using Line = std::shared_ptr<const util::EventFd>;
    // That of the pin, if its interrupts go to the guest, and the guest's acknowledgements to the
    // driver, by themselves; else null.
    Line routed_intx() const;
    std::vector<Line> lines(uint32_t index) const;

 private:
    // An eventfd and its watch. Made once per vector, kept until another kind of interrupt is used.
    struct Watched {
        util::EventFd fd;
        util::Registration watch;  // loop thread only; goes before the descriptor
    };

    IrqWiring(system::MainLoop& loop, VfioDeviceIo& io, Infos infos,
              system::InterruptRoutes* routes, std::optional<unsigned> input, Fired fired)
        : loop_(loop),
          io_(io),
          infos_(infos),
          fired_(std::move(fired)),
          routes_(routes),
          messages_(routes != nullptr ? routes->create_msi_routes() : nullptr),
          input_(input) {}
    // The way of the pin past this process.
    struct RoutedPin {
        std::shared_ptr<const util::EventFd> event;
        util::EventFd acknowledged;
        util::Registration connection;
    };
    // Before the driver can signal, and after; null where it does not work.
    std::shared_ptr<RoutedPin> route_pin(const std::shared_ptr<const util::EventFd>& event);
    void finish_pin(std::shared_ptr<RoutedPin> pin);
    Result<> disable();
    Result<> enable(const Wish& wish);
    Result<> connect(const Wish& wish, size_t count);
    Result<> add_vectors(const Wish& wish);
    Result<> reconnect(const Wish& wish);
    Result<BorrowedFd> line_fd(uint32_t index, uint32_t vector);
    // The driver does not know them any more. Closed by the loop thread, where the watches are.
    void retire_lines(uint32_t index);
    void watch_later(uint32_t index, uint32_t vector, const std::shared_ptr<Watched>& line);

    system::MainLoop& loop_;
    VfioDeviceIo& io_;
    const Infos infos_;
    const Fired fired_;
    system::InterruptRoutes* const routes_;              // may be null
    const std::unique_ptr<system::MsiRoutes> messages_;  // null if routes_ is
    const std::optional<unsigned> input_;
    Wish applied_;  // vectors.size(): as many as the driver has set up

    mutable std::mutex mutex_;  // what follows; never held across a call of the driver or the loop
    std::array<std::vector<std::shared_ptr<Watched>>, kPciIrqKinds> lines_;
    std::vector<std::shared_ptr<Watched>> retired_;
    std::shared_ptr<RoutedPin> pin_;
};

}  // namespace ferry::vfio
