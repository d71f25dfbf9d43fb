// SPDX-License-Identifier: BSD-2-Clause
// Declarative state of plain devices: fields in order, versions, subsections. Describes an object
// of type T by member pointers; encodes, decodes and documents itself (VMDESCRIPTION).
// Bytes: docs/interop/device-state.rst.
//
//   const VMStateDescription kTimer = VMState<Timer>("timer", 2, 1)
//       .field("cpu_ticks_offset", &Timer::ticks).unused(8)
//       .field("cpu_clock_offset", &Timer::clock, 2).build();
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "migration/stream.h"
#include "util/result.h"

namespace ferry::migration {

class VMStateDescription {
 public:
    struct Field {
        std::string name;
        std::string type;  // "uint32", "bool", "buffer", ... as the VMDESCRIPTION spells it
        size_t size = 0;   // bytes of one element
        size_t array_len = 1;
        uint32_t since = 0;  // first version that has it
        std::function<void(const void* object, SaveStream& out)> put;
        std::function<Result<>(void* object, LoadStream& in)> get;
    };
    struct Subsection;

    const std::string& name() const { return name_; }
    uint32_t version() const { return version_; }

    // The body: fields, then subsections that are needed. Only pre_save hooks change the object.
    void save(void* object, SaveStream& out) const;
    // Checks version <= version() and >= the minimum; missing subsections keep their defaults.
    Result<> load(void* object, LoadStream& in, uint32_t version) const;
    // Reads one body as load() would, with all checks that need no object, and appends its bytes to
    // `body`: for a reader that may block where the object may not be touched. load() over those
    // bytes then applies them elsewhere. What a peer can make this hold is bounded by the
    // description, as each subsection may come once.
    Result<> collect(LoadStream& in, uint32_t version, std::vector<std::byte>& body) const;
    // `"vmsd_name": ..., "version": ..., "fields": [...] [, "subsections": [...]]` (no braces) for
    // the body that save() writes for this object.
    std::string describe(const void* object) const;
    bool needed(const void* object) const { return !needed_ || needed_(object); }

 private:
    template <typename T>
    friend class VMState;

    Result<> check_version(uint32_t version) const;
    // Calls `read` for each subsection that follows, after its header was consumed.
    using ReadSubsection = std::function<Result<>(const Subsection& subsection, uint32_t version)>;
    Result<> for_each_subsection(LoadStream& in, const ReadSubsection& read) const;
    std::string describe_field(const Field& field, size_t index) const;

    std::string name_;
    uint32_t version_ = 1;
    uint32_t minimum_version_ = 1;
    std::vector<Field> fields_;
    std::vector<Subsection> subsections_;
    std::function<bool(const void* object)> needed_;
    std::function<void(void* object)> pre_save_;
    std::function<Result<>(void* object, uint32_t version)> post_load_;
};

struct VMStateDescription::Subsection {
    VMStateDescription description;
    std::function<bool(const void* object)> needed;
};

namespace detail {
void put_integer(SaveStream& out, uint64_t value, size_t size);
Result<uint64_t> get_integer(LoadStream& in, size_t size);
}  // namespace detail

// Builds a VMStateDescription for objects of type T.
template <typename T>
class VMState {
 public:
    VMState(std::string name, uint32_t version, uint32_t minimum_version) {
        out_.name_ = std::move(name);
        out_.version_ = version;
        out_.minimum_version_ = minimum_version;
    }

    // bool, or an integer of 8 to 64 bits, signed or not.
    template <std::integral V>
    VMState& field(std::string name, V T::* member, uint32_t since = 0) {
        return add(
            std::move(name), type_name<V>(), sizeof(V), 1, since,
            [member](const T& object, SaveStream& out) {
                detail::put_integer(out, static_cast<uint64_t>(object.*member), sizeof(V));
            },
            [member](T& object, LoadStream& in) -> Result<> {
                auto value = detail::get_integer(in, sizeof(V));
                if (!value) return std::move(value).error();
                if constexpr (std::same_as<V, bool>) {
                    object.*member = *value != 0;
                } else {
                    object.*member = static_cast<V>(*value);
                }
                return {};
            });
    }
    template <size_t N>
    VMState& buffer(std::string name, std::array<std::byte, N> T::* member, uint32_t since = 0) {
        return add(
            std::move(name), "buffer", N, 1, since,
            [member](const T& object, SaveStream& out) { out.bytes(object.*member); },
            [member](T& object, LoadStream& in) -> Result<> { return in.bytes(object.*member); });
    }
    // Zeros on saving, ignored on loading.
    VMState& unused(size_t size, uint32_t since = 0) {
        return add(
            "unused", "unused_buffer", size, 1, since,
            [size](const T&, SaveStream& out) { out.zeros(size); },
            [size](T&, LoadStream& in) -> Result<> { return in.skip(size); });
    }
    // `name` must begin with the parent's: "timer/icount".
    VMState& subsection(VMStateDescription description, std::function<bool(const T&)> needed) {
        out_.subsections_.push_back(
            {std::move(description), [needed = std::move(needed)](const void* object) {
                 return needed(*static_cast<const T*>(object));
             }});
        return *this;
    }
    // Asked when the section's turn comes: without need it is left out. Default: always needed.
    VMState& needed(std::function<bool(const T&)> hook) {
        out_.needed_ = [hook = std::move(hook)](const void* object) {
            return hook(*static_cast<const T*>(object));
        };
        return *this;
    }
    VMState& pre_save(std::function<void(T&)> hook) {
        out_.pre_save_ = [hook = std::move(hook)](void* object) { hook(*static_cast<T*>(object)); };
        return *this;
    }
    // Checks what was loaded and makes it take effect.
    VMState& post_load(std::function<Result<>(T&, uint32_t version)> hook) {
        out_.post_load_ = [hook = std::move(hook)](void* object, uint32_t version) {
            return hook(*static_cast<T*>(object), version);
        };
        return *this;
    }
    VMStateDescription build() { return std::move(out_); }

 private:
    template <typename V>
    static std::string type_name() {
        if constexpr (std::same_as<V, bool>) {
            return "bool";
        } else {
            return (std::is_signed_v<V> ? "int" : "uint") + std::to_string(sizeof(V) * 8);
        }
    }
    template <typename Put, typename Get>
    VMState& add(std::string name, std::string type, size_t size, size_t array_len, uint32_t since,
                 Put put, Get get) {
        out_.fields_.push_back({std::move(name), std::move(type), size, array_len, since,
                                [put](const void* object, SaveStream& out) {
                                    put(*static_cast<const T*>(object), out);
                                },
                                [get](void* object, LoadStream& in) -> Result<> {
                                    return get(*static_cast<T*>(object), in);
                                }});
        return *this;
    }

    VMStateDescription out_;
};

}  // namespace ferry::migration
