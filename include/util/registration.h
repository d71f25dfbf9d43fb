// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <functional>
#include <utility>

namespace ferry::util {

// Something that was added to a list and leaves it when this object goes. Destroy it on the thread
// the list belongs to, and before the list.
class Registration {
 public:
    Registration() = default;
    explicit Registration(std::move_only_function<void()> remove) : remove_(std::move(remove)) {}
    Registration(Registration&& other) noexcept : remove_(std::exchange(other.remove_, nullptr)) {}
    Registration& operator=(Registration&& other) noexcept {
        if (this != &other) {
            reset();
            remove_ = std::exchange(other.remove_, nullptr);
        }
        return *this;
    }
    ~Registration() { reset(); }
    void reset() {
        if (auto remove = std::exchange(remove_, nullptr)) remove();
    }

 private:
    std::move_only_function<void()> remove_;
};

}  // namespace ferry::util
